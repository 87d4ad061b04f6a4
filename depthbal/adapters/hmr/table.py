"""Errors of recovered bodies as a table on the terminal and as table.json."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.adapters.hmr.evaluation import ERRORS

TITLES = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mpvpe": "MPVPE"}
COLUMNS = {"all": "all", "tail10": "tail 10 %", "tail5": "tail 5 %"}


def summary(metrics: Mapping[str, Any], distance: str = "vertex") -> dict[str, Any]:
    """Return a run's row of table.json, millimetres.

    Args:
        metrics: The content of metrics.json.
        distance: By which the balanced errors are: "vertex" or "geodesic".
    """
    balanced = metrics["balanced"][distance]
    plain = {name: metrics["overall"][name] for name in ERRORS}
    return plain | {f"b{name}": {key: balanced[name][key] for key in COLUMNS} for name in ERRORS}


def medians(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tables of one structure as one table of the medians of their numbers.

    A number that one of them lacks (None) has no median.

    Example:
        >>> medians([{"mse": {"mpjpe": value}} for value in (3.0, 9.0, 1.0)])
        {'mse': {'mpjpe': 3.0}}
    """
    columns = {key: [table[key] for table in tables] for key in tables[0]}
    return {
        key: medians(found) if isinstance(found[0], Mapping) else _median(found)
        for key, found in columns.items()
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) == len(values) else None


def print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    """Print one run's errors by both distances, and how the balanced means came about."""
    print_comparison(console, {"this run": metrics})


def print_comparison(console: Console, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print plain and balanced errors of several runs, with intervals, by both distances.

    Args:
        console: Where.
        runs: metrics.json's content by the runs' names.
    """
    some = next(iter(runs.values()))
    for distance, described in some["balanced"].items():
        table = _table(f"Balanced over the {distance} distance to the mean pose (mm)")
        for name, metrics in runs.items():
            for error in ERRORS:
                block = metrics["balanced"][distance][error]
                cells = [_cell(block, key) for key in COLUMNS]
                table.add_row(name, TITLES[error], f"{metrics['overall'][error]:.1f}", *cells)
        console.print(table)
        lines = [
            f"{described['bins_used']} of {described['bins']} bins have samples, "
            f"{described['counts'].count(1)} of them a single one",
            f"intervals: 95 %, {described['independent']} taken as independent",
        ]
        console.print(*lines, sep="\n", highlight=False)
    for fact in ("ground_truth", "predictions"):
        console.print(f"{fact.replace('_', ' ')}: {some['protocol'][fact]}", highlight=False)


def print_medians(console: Console, tables: Sequence[Mapping[str, Any]]) -> None:
    """Print medians over seeds, and in how many of them GAI has the lower error of rare poses.

    Args:
        console: Where.
        tables: table.json's content for every seed.
    """
    table = _table(f"Medians of {len(tables)} seeds, by the vertex distance (mm)")
    for name, row in medians(tables).items():
        for error in ERRORS:
            numbers = (row[error], *row[f"b{error}"].values())
            table.add_row(name, TITLES[error], *map(_number, numbers))
    console.print(table)
    for error in ERRORS:
        pairs = [[found[run][f"b{error}"]["tail10"] for run in ("gai", "mse")] for found in tables]
        known = [pair for pair in pairs if None not in pair]
        lower = sum(gai < mse for gai, mse in known)
        text = f"{TITLES[error]} of the farthest 10 %: gai is below mse in {lower} of {len(known)} "
        text += "seeds"
        console.print(text, highlight=False)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in ("run", "error", "plain", *COLUMNS.values()):
        table.add_column(column, justify="left" if column in ("run", "error") else "right")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _cell(block: Mapping[str, Any], key: str) -> str:
    if block[key] is None:
        return "-"
    low, high = block["intervals_95"][key]
    return f"{block[key]:.1f} ± {(high - low) / 2:.1f}"
