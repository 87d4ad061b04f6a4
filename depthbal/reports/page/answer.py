"""The page's first table: overall and every shot, each run against the first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depthbal.evaluation.scores import GROUPS
from depthbal.reports.comparison import Comparison, Difference, Pair, Statistic
from depthbal.reports.page.numbers import fixed
from depthbal.reports.page.view import View, statistic_name
from depthbal.reports.page.vocabulary import MetricInfo
from depthbal.reports.results import RunResult

STRIP_WIDTH = 100
"""Of the drawn intervals' coordinates; they stretch with their cell."""


@dataclass(frozen=True)
class Strip:
    """An interval as a drawing: positions in 0 to `STRIP_WIDTH`."""

    zero: float
    low: float | None
    high: float | None
    estimate: float


@dataclass(frozen=True)
class Cell:
    """One number of the table, with its difference to the first row."""

    value: str
    exact: float | None
    best: bool = False
    change: str = ""
    verdict: str = ""
    interval: str = ""
    strip: Strip | None = None


@dataclass(frozen=True)
class Row:
    """One method: its name, how it is drawn in figures, its cells."""

    name: str
    colour: int
    dash: str
    seeds: int
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """One metric, averaged in one way."""

    key: str
    metric: MetricInfo
    statistic: Statistic
    title: str
    groups: list[str]
    rows: list[Row]


def answer_tables(view: View) -> list[Table]:
    """Return one table per metric and statistic, the main metric's mean over bins first."""
    known = [info for info in view.metrics if info.key != "mse"]
    if view.comparison is not None:
        known = [info for info in known if info.key in view.comparison.metrics]
    statistics: tuple[Statistic, ...] = ("bins", "pooled")
    return [_table(view, info, statistic) for info in known for statistic in statistics]


def sentences(view: View) -> list[str]:
    """Return what the comparison found, in words."""
    if view.comparison is None:
        return []
    return [pair.sentence for pair in view.comparison.pairs if pair.first == 0]


def lead(view: View) -> str:
    """Return the page's first sentence: how much worse rare labels are, or who does best where."""
    return _lead_of_several(view) if view.comparison is not None else _lead_of_one(view)


def _table(view: View, info: MetricInfo, statistic: Statistic) -> Table:
    rows = _values(view, info.key, statistic)
    groups = [g for g in GROUPS if any(row[g] is not None for row in rows)]
    best = {group: _best([row[group] for row in rows], info) for group in groups}
    pairs = _pairs(view.comparison)
    reach = _reach(view, info.key, statistic, groups)
    table_rows = []
    for number, values in enumerate(rows):
        name, run, seeds = _identity(view, number)
        style = view.styles[run]
        cells = []
        for group in groups:
            value = values[group]
            pair = pairs.get(number)
            difference = pair.differences.get((info.key, group, statistic)) if pair else None
            is_best = len(rows) > 1 and value is not None and value == best[group]
            cells.append(_cell(value, difference, info, is_best, reach))
        table_rows.append(Row(name, style.colour, style.dash, seeds, cells))
    title = f"{info.name}{f' in {info.unit}' if info.unit else ''}"
    return Table(f"{info.key}-{statistic}", info, statistic, title, groups, table_rows)


def _identity(view: View, row: int) -> tuple[str, int, int]:
    """Return name, the run whose colour it has, and the number of seeds of a row."""
    if view.comparison is None:
        return view.results[row].name, row, 1
    method = view.comparison.methods[row]
    return method.name, method.runs[0], len(method.runs)


def _values(view: View, metric: str, statistic: Statistic) -> list[dict[str, float | None]]:
    if view.comparison is None:
        return [_own(result, metric, statistic) for result in view.results]
    pairs = _pairs(view.comparison)
    rows = []
    for number, method in enumerate(view.comparison.methods):
        pair = pairs.get(max(number, 1))
        if pair is None:
            own = [_own(view.results[run], metric, statistic) for run in method.runs]
            rows.append({group: _mean([row[group] for row in own]) for group in GROUPS})
            continue
        found = {group: pair.differences.get((metric, group, statistic)) for group in GROUPS}
        rows.append(
            {
                group: None if d is None else (d.second if number else d.first)
                for group, d in found.items()
            }
        )
    return rows


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _own(result: RunResult, metric: str, statistic: Statistic) -> dict[str, float | None]:
    metrics: dict[str, Any] = result.metrics
    bins = metrics.get("all_pixels", metrics)["per_bin_mean"]
    block = bins if statistic == "bins" else metrics
    return {group: block[group].get(metric) for group in GROUPS}


def _pairs(comparison: Comparison | None) -> Mapping[int, Pair]:
    if comparison is None:
        return {}
    return {pair.second: pair for pair in comparison.pairs if pair.first == 0}


def _best(values: list[float | None], info: MetricInfo) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if info.better == "zero":
        return min(known, key=abs)
    return max(known) if info.better == "higher" else min(known)


def _reach(view: View, metric: str, statistic: Statistic, groups: list[str]) -> float:
    """Return the largest distance from 0 that a strip has to show: one scale for the table."""
    ends = [0.0]
    for pair in _pairs(view.comparison).values():
        for group in groups:
            found = pair.differences.get((metric, group, statistic))
            if found is not None:
                ends += [abs(x) for x in (found.estimate, found.low, found.high) if x is not None]
    return max(ends)


def _cell(
    value: float | None,
    difference: Difference | None,
    info: MetricInfo,
    best: bool,
    reach: float,
) -> Cell:
    cell = Cell(fixed(value, info.digits), value, best)
    if difference is None or difference.estimate is None:
        return cell
    low, high = difference.low, difference.high
    interval = ""
    if low is not None and high is not None:
        interval = f"[{fixed(low, info.digits, True)}, {fixed(high, info.digits, True)}]"
    return Cell(
        cell.value,
        value,
        best,
        fixed(difference.estimate, info.digits, sign=True),
        verdict(difference, info),
        interval,
        _strip(difference, reach),
    )


def verdict(difference: Difference, info: MetricInfo) -> str:
    """Return "better" or "worse" where the interval leaves 0 out, else "open".

    A bias is better the nearer it is to 0, which an interval of its change does not tell.
    """
    low, high = difference.low, difference.high
    if low is None or high is None or low <= 0 <= high or info.better == "zero":
        return "open"
    return "better" if (low > 0) == (info.better == "higher") else "worse"


def _strip(difference: Difference, reach: float) -> Strip | None:
    if not reach or difference.estimate is None:
        return None

    def place(value: float | None) -> float | None:
        if value is None:
            return None
        return round(STRIP_WIDTH * (0.5 + 0.48 * value / reach), 2)

    estimate = place(difference.estimate)
    assert estimate is not None
    return Strip(STRIP_WIDTH / 2, place(difference.low), place(difference.high), estimate)


def _lead_of_one(view: View) -> str:
    info, own = view.main, _own(view.results[0], view.main.key, "bins")
    many, few, overall = own["many"], own["few"], own["overall"]
    how = f"({statistic_name(view, 'bins')})"
    if many and few:
        return (
            f"{info.name} is {_with_unit(few, info)} where training labels are few, "
            f"{fixed(few / many, 1)} times the {_with_unit(many, info)} where they are many {how}."
        )
    return f"{info.name} is {_with_unit(overall, info)} {how}."


def _lead_of_several(view: View) -> str:
    info, rows = view.main, _values(view, view.main.key, "bins")
    places = {
        "overall": "overall",
        "many": "where training labels are many",
        "few": "where training labels are few",
    }
    won: dict[str, list[str]] = {}
    for group, words in places.items():
        best = _best([row[group] for row in rows], info)
        if best is None:
            continue
        number = next(n for n, row in enumerate(rows) if row[group] == best)
        name = _identity(view, number)[0]
        won.setdefault(name, []).append(f"{words} ({_with_unit(best, info)})")
    parts = [f"{name} {_listed(words)}" for name, words in won.items()]
    extreme = "highest" if info.better == "higher" else "lowest"
    return (
        f"The {extreme} {info.name} on these {len(view.results[0].names):,} test images: "
        f"{'; '.join(parts)}. {statistic_name(view, 'bins').capitalize()}."
    )


def _with_unit(value: float | None, info: MetricInfo) -> str:
    return f"{fixed(value, info.digits)}{f' {info.unit}' if info.unit else ''}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
