"""Results on the terminal, and the report that goes with them."""

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
COUNTS = ("count", "images")
EDGES = ("boundary_f1", "flying")


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """Print the main table, that of all pixels beside a mask, and say how they were averaged."""
    protocol, console = metrics["protocol"], Console()
    label, ending = protocol["label"], ""
    if readout := protocol.get("readout"):
        values = metrics.get("readout", {})
        # a loss without a noise scale has no other mean
        raw = readout == "mean" and "raw" in values and values["mean"] == values["raw"]
        ending = f", read-out {readout}" + (" (the raw output)" if raw else "")
    if "posthoc" in protocol:
        ending += f", balanced afterwards ({balance_words(protocol['posthoc'])})"
    masked = "mask" in protocol and "all_pixels" in metrics
    title = f"Protocol {protocol['name']}, mean over images"
    if masked:
        title = f"Balanced mask (every {label['name']} bin alike)"
    elif "all_pixels" not in metrics:
        unit = f" in {label['unit']}" if label["unit"] else ""
        title = f"{label['name'][:1].upper()}{label['name'][1:]}{unit}"
    console.print(_table(title + ending, metrics))
    if masked:
        console.print(_table(f"All pixels{ending}", metrics["all_pixels"]))
        unit = "metres" if label["unit"] == "m" else label["unit"]
        print(f"Errors in {unit}, pooled over pixels; bins without test pixels are left out.")
    shown = [key for key in EDGES if metrics["overall"].get(key) is not None]
    for group in GROUPS if shown else ():
        found = ((key, metrics[group][key]) for key in shown)
        values = ", ".join(f"{key} {'-' if x is None else format(x, '.3f')}" for key, x in found)
        print(f"Edges, {group}: {values}")
    rows = {(row["protocol"], row["readout"]): row for row in metrics.get("protocols", [])[::-1]}
    for (name, key), row in [*rows.items()][-2::-1]:  # each one's top level, but the first's
        values = ", ".join(f"{k} {row[k]:.3f}" for k in SHOWN if row.get(k) is not None)
        what = protocol["alignment"].get(key, key)
        print(f"{name}, {row['averaging']}, {key} ({what}): overall {values}")


def _table(title: str, metrics: Mapping[str, Any]) -> Table:
    """Return a table with one row per shot."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    row = metrics["overall"]
    # without any of them: errors that were measured elsewhere
    names = [name for name in SHOWN if name in row] or [n for n in row if n not in COUNTS]
    digits, last = (3, "pixels") if "abs_rel" in names else (2, "samples")
    table.add_column("shot", no_wrap=True)
    for name in (*names, last):
        table.add_column(name, justify="right", no_wrap=True)
    for group in GROUPS:
        row = metrics[group]
        cells = ["-" if row.get(name) is None else f"{row[name]:.{digits}f}" for name in names]
        table.add_row(group, *cells, f"{row['count']:,}")
    return table


def try_report(results: Sequence[Path], out: Path) -> None:
    """Write a report and say where it is; one that cannot be written spoils no training."""
    try:
        print(f"Report: {write_report(results, out)}")
    except Exception as error:  # whatever it is, the result stands
        kind = "" if isinstance(error, DepthbalError | OSError) else f"{type(error).__name__}: "
        warnings.warn(f"no report was written: {kind}{error}", stacklevel=2)
