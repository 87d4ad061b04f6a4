"""Results of age regression as tables on the terminal."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.evaluation import GROUPS
from depthbal.training.tables import readout_words

METRICS = {"mae": "MAE", "gm": "GM", "bmae": "bMAE"}

Metrics = Mapping[str, Any]


def print_result(console: Console, metrics: Metrics) -> None:
    """Print one run's result, a row per shot."""
    label = metrics["protocol"]["label"]
    names = {**METRICS, "mse": "MSE", "bmse": "bMSE"}
    title = f"{label['name']} in {label['unit']}, {readout_words(metrics)}"
    table = _table(title, ["shot"], [*names.values(), "images"])
    for group in GROUPS:
        row = metrics[group]
        table.add_row(group, *(_cell(row[name]) for name in names), f"{row['count']:,}")
    console.print(table)


def print_runs(console: Console, runs: Mapping[str, Sequence[Metrics]]) -> None:
    """Print several methods by shot, medians over their runs, and changes against the first.

    Args:
        console: Where to.
        runs: Per method the results of its seeds.
    """
    seeds = max(len(results) for results in runs.values())
    title = f"Medians of {seeds} seeds" if seeds > 1 else "Methods by shot"
    title = f"{title}, changes against {next(iter(runs))}"
    table = _table(title, ["shot", "method"], METRICS.values())
    for group in GROUPS:
        first: list[float | None] = []
        for method, results in runs.items():
            found = [_median(results, group, metric) for metric in METRICS]
            changes = [_change(*pair) for pair in zip(found, first, strict=False)] or [""] * 3
            cells = [f"{_cell(value)}{text}" for value, text in zip(found, changes, strict=True)]
            table.add_row("" if first else group, method, *cells)
            first = first or found
    console.print(table)


def _median(results: Sequence[Metrics], group: str, metric: str) -> float | None:
    values = [result[group][metric] for result in results]
    return None if None in values else statistics.median(values)


def _change(new: float | None, old: float | None) -> str:
    return "" if new is None or not old else f" ({100 * (new / old - 1):+.0f} %)"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(title: str, words: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
