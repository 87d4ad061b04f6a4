"""Results of age regression as tables on the terminal."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.evaluation import GROUPS

METRICS = {"mae": "MAE", "gm": "GM", "bmae": "bMAE"}

Metrics = Mapping[str, Any]


def print_result(console: Console, metrics: Metrics) -> None:
    """Print one run's result, a row per shot."""
    protocol = metrics["protocol"]
    label = protocol["label"]
    table = _table(f"{label['name']} in {label['unit']}, read-out {protocol['readout']}", "shot")
    names = {**METRICS, "mse": "MSE", "bmse": "bMSE"}
    for name in (*names.values(), "images"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in GROUPS:
        row = metrics[group]
        table.add_row(group, *(_cell(row[name]) for name in names), f"{row['count']:,}")
    console.print(table)


def print_runs(console: Console, runs: Mapping[str, Sequence[Metrics]]) -> None:
    """Print several methods, medians over their runs, and what changes against the first.

    Args:
        console: Where to.
        runs: Per method the results of its seeds.
    """
    seeds = max(len(results) for results in runs.values())
    table = _table(f"Median of {seeds} seeds" if seeds > 1 else "Errors by shot", "")
    for metric in METRICS.values():
        for group in GROUPS:
            table.add_column(f"{metric}\n{group}", justify="right", no_wrap=True)
    found = {name: _medians(results) for name, results in runs.items()}
    first = next(iter(found))
    for name, row in found.items():
        table.add_row(name, *(_cell(value) for value in row))
    for name in list(found)[1:]:
        changes = zip(found[name], found[first], strict=True)
        table.add_row(f"{name} vs {first}", *(_change(new, old) for new, old in changes))
    console.print(table)


def _medians(results: Sequence[Metrics]) -> list[float | None]:
    values = [
        [result[group][metric] for result in results] for metric in METRICS for group in GROUPS
    ]
    return [None if None in column else statistics.median(column) for column in values]


def _change(new: float | None, old: float | None) -> str:
    return "-" if new is None or not old else f"{100 * (new / old - 1):+.0f} %"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    return table
