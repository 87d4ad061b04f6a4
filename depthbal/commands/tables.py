"""Results on the terminal, and the report that goes with them."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.errors import DepthbalError
from depthbal.evaluation import GROUPS
from depthbal.evaluation.balancing import balance_words
from depthbal.reports import write_report

SHOWN = ("rmse", "mae", "bmae", "gm", "abs_rel", "log10", "delta1", "bias")
"""The columns of the terminal, as far as a result has them: they fit 80 characters."""


def metrics_table(title: str, metrics: Mapping[str, Any]) -> Table:
    """Return a table with one row per shot.

    Args:
        title: What was averaged.
        metrics: Overall, many, medium and few, as metrics.json holds them.
    """
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("shot", no_wrap=True)
    row = metrics["overall"]
    names = [name for name in SHOWN if name in row]
    if not names:  # errors that were measured elsewhere
        names = [name for name in row if name not in ("count", "images")]
    digits = 3 if "abs_rel" in names else 2
    last = "pixels" if "abs_rel" in names else "samples"
    for name in (*names, last):
        table.add_column(name, justify="right", no_wrap=True)
    for group in GROUPS:
        row = metrics[group]
        cells = ["-" if row.get(name) is None else f"{row[name]:.{digits}f}" for name in names]
        table.add_row(group, *cells, f"{row['count']:,}")
    return table


def readout_words(metrics: Mapping[str, Any]) -> str:
    """Return which read-out a result is of.

    Example:
        >>> row = {"overall": {"rmse": 1.0}}
        >>> metrics = {"protocol": {"readout": "mean"}, "readout": {"raw": row, "mean": row}}
        >>> readout_words(metrics)
        'read-out mean (the raw output)'
    """
    name, values = metrics["protocol"].get("readout"), metrics.get("readout", {})
    if name is None:
        return ""
    # a loss without a noise scale has no other mean
    same = name == "mean" and "raw" in values and values["mean"] == values["raw"]
    return f"read-out {name} (the raw output)" if same else f"read-out {name}"


def print_metrics(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print the main table, that of all pixels beside a mask, and say how they were averaged."""
    protocol = metrics["protocol"]
    label = protocol["label"]
    readout = readout_words(metrics)
    if "posthoc" in protocol:
        readout += f", balanced afterwards ({balance_words(protocol['posthoc'])})"
    ending = f", {readout}" if readout else ""
    if protocol["name"] == "eigen":
        console.print(metrics_table(f"Eigen crop, mean over images{ending}", metrics))
        return
    if "all_pixels" not in metrics:
        title = f"{label['name'].capitalize()} in {label['unit']}{ending}"
        console.print(metrics_table(title, metrics))
        return
    title = f"Balanced mask (every {label['name']} bin alike){ending}"
    console.print(metrics_table(title, metrics))
    console.print(metrics_table(f"All pixels{ending}", metrics["all_pixels"]))
    unit = "metres" if label["unit"] == "m" else label["unit"]
    console.print(f"Errors in {unit}, pooled over pixels; bins without test pixels are left out.")


def duration_text(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> duration_text(272.4), duration_text(9.84)
        ('4 min 32 s', '9.8 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def finish_training(console: Console, run: Path, metrics: Mapping[str, Any]) -> None:
    """Print a training's result, write its report, and say where both are."""
    print_metrics(console, metrics)
    seconds = json.loads((run / "run.json").read_text(encoding="utf-8"))["duration_s"]
    console.print(f"Training and evaluation took {duration_text(seconds)}.", highlight=False)
    report = try_report([run], run / "report.html")
    if report is not None:
        console.print(f"Report: {report}", highlight=False, soft_wrap=True)
    console.print(f"Run folder: {run}", highlight=False, soft_wrap=True)


def try_report(results: Sequence[Path], out: Path) -> Path | None:
    """Write a report; one that cannot be written spoils no training."""
    try:
        return write_report(results, out)
    except Exception as error:  # whatever it is, the result stands
        kind = "" if isinstance(error, DepthbalError | OSError) else f"{type(error).__name__}: "
        warnings.warn(f"no report was written: {kind}{error}", stacklevel=2)
        return None
