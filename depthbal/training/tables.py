"""Results as tables on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.evaluation import GROUPS

COLUMNS = ("rmse", "mae", "abs_rel", "log10", "delta1", "bias")  # fits 80 characters


def metrics_table(title: str, metrics: dict[str, Any]) -> Table:
    """Return a table with one row per shot.

    Args:
        title: What the pixels are.
        metrics: Overall, many, medium and few, as metrics.json holds them.
    """
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("shot", no_wrap=True)
    for name in (*COLUMNS, "pixels"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in GROUPS:
        row = metrics[group]
        cells = ["-" if row.get(name) is None else f"{row[name]:.3f}" for name in COLUMNS]
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
    name, values = metrics["protocol"]["readout"], metrics.get("readout", {})
    # a loss without a noise scale has no other mean
    same = name == "mean" and values.get("mean") == values.get("raw")
    return f"read-out {name} (the raw output)" if same else f"read-out {name}"


def print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    """Print the balanced mask's table and that of all pixels, and say how they were averaged."""
    protocol = metrics["protocol"]
    readout = readout_words(metrics)
    if "posthoc" in protocol:
        readout += f", balanced afterwards (sigma {protocol['posthoc']['noise_sigma']:g})"
    if protocol["name"] == "eigen":
        console.print(metrics_table(f"Eigen crop, mean over images, {readout}", metrics))
        return
    console.print(metrics_table(f"Balanced mask (every depth bin alike), {readout}", metrics))
    console.print(metrics_table(f"All pixels, {readout}", metrics["all_pixels"]))
    console.print("Errors in metres, pooled over pixels; bins without test pixels are left out.")


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
