"""What a comparison found, in sentences that say over what it holds."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from depthbal.evaluation import GROUPS
from depthbal.reports.comparison import Difference, Statistic
from depthbal.reports.intervals import LEVEL, MAX_LOST
from depthbal.reports.methods import Method
from depthbal.reports.page.numbers import fixed
from depthbal.reports.page.vocabulary import MetricInfo, metric_infos, words_of
from depthbal.reports.resampled_numbers import Plan
from depthbal.reports.resampling import FEW_UNITS, MIN_UNITS
from depthbal.reports.results import RunResult

Differences = Mapping[tuple[str, str, Statistic], Difference]


def pair_sentence(
    first: Method,
    second: Method,
    differences: Differences,
    plan: Plan,
    results: Sequence[RunResult],
) -> str:
    """Return what two methods differ in, main metric, and over what that holds."""
    result = results[first.runs[0]]
    metric = plan.metrics[0]
    words = words_of(result)
    info = info_of(metric, result, differences[metric, "overall", "bins"].first)
    found = [
        part
        for group in GROUPS
        if (part := _clause(group, differences[metric, group, "bins"], info)) is not None
    ]
    if not found:
        return f"{second.name} against {first.name}: no scored bin has {words.items}."
    return (
        f"{second.name} against {first.name}, {info.name} as the mean over the bins of "
        f"{words.label}, all {words.items}: {'; '.join(found)}. "
        f"{_scope(first, second, plan, results)}"
    )


def info_of(metric: str, result: RunResult, scale: float | None) -> MetricInfo:
    """Return how a metric is shown."""
    return metric_infos((metric,), metric, result.label.unit, scale or 1.0)[0]


def interval_text(difference: Difference, digits: int) -> str:
    """Return a difference with its interval.

    Example:
        >>> interval_text(Difference(2.0, 1.5, -0.5, -0.75, -0.25), 2)
        '−0.50 (−0.75 to −0.25)'
    """
    text = fixed(difference.estimate, digits, sign=True)
    if difference.low is None:
        return text
    ends = (fixed(end, digits, sign=True) for end in (difference.low, difference.high))
    return f"{text} ({' to '.join(ends)})"


def _clause(group: str, difference: Difference, info: MetricInfo) -> str | None:
    if difference.estimate is None:
        return None
    two, one = (fixed(value, info.digits) for value in (difference.second, difference.first))
    unit = f" {info.unit}" if info.unit else ""
    change = fixed(difference.estimate, info.digits, sign=True)
    text = f"{two} instead of {one}{unit}: {change}"
    shot = group if group == "overall" else f"{group}-shot"
    if difference.low is None or difference.high is None:
        return f"{shot} {text}, no interval"
    low, high = (fixed(end, info.digits, sign=True) for end in (difference.low, difference.high))
    return f"{shot} {_verdict(difference)} ({text}, {LEVEL:.0%} interval {low} to {high})".replace(
        "%", " %"
    )


def _verdict(difference: Difference) -> str:
    assert difference.low is not None
    assert difference.high is not None
    if difference.low == difference.high == 0:
        return "the same"
    if difference.high < 0:
        return "lower"
    return "higher" if difference.low > 0 else "no difference found"


def _scope(first: Method, second: Method, plan: Plan, results: Sequence[RunResult]) -> str:
    enough = plan.units.count >= MIN_UNITS
    over = f"This holds {'over' if enough else 'only on'} {plan.units.text}"
    sizes = (len(first.runs), len(second.runs))
    if sizes == (1, 1):
        paths = {results[method.runs[0]].path for method in (first, second)}
        if len(paths) == 1:
            return (
                f"{over} and for this one trained network, read out in two ways; with one seed "
                "nothing is claimed about the methods."
            )
        return (
            f"{over} and for these two trained networks; with one seed each nothing is claimed "
            "about the methods."
        )
    if 1 in sizes:
        many, single = (first, second) if sizes[1] == 1 else (second, first)
        return (
            f"{over} and {len(many.runs)} seeds of {many.name}; {single.name} is one trained "
            "network, so nothing is claimed about its method."
        )
    seeds = str(sizes[0]) if sizes[0] == sizes[1] else f"{sizes[1]} against {sizes[0]}"
    return f"{over} and {seeds} seeds."


def resampling_notes(
    plan: Plan,
    empty: npt.NDArray[np.int64],
    empty_bins: npt.NDArray[np.bool_],
    several_seeds: bool,
) -> tuple[str, ...]:
    """Return what a reader must know about the resampling.

    Args:
        plan: how it was done.
        empty: (bins,) resamples in which a bin with pixels was empty.
        empty_bins: (resamples, bins with pixels) where that was.
        several_seeds: whether a method has them.
    """
    if plan.units.count < MIN_UNITS:
        return (
            f"No intervals: {plan.units.text} are too few to draw from, {MIN_UNITS} are needed.",
        )
    scenes = plan.units.count < len(plan.units.of_image)
    notes = [
        f"Intervals: central {100 * LEVEL:.0f} % of {plan.resamples:,} resamples of "
        f"{plan.units.text}{', then of the images in each' if scenes else ''} (seed {plan.seed}), "
        "a little wider where these are few; every interval on its own, not corrected for their "
        "number. Bands over bins hold in all their bins at once."
    ]
    if plan.units.count < FEW_UNITS:
        notes.append(
            f"{plan.units.text} are few: the intervals, above all those of means over bins, may "
            "hold less often than they say."
        )
    if several_seeds:
        notes.append(
            "Where a method has several seeds, intervals allow for the variation between them by "
            "Student's t; methods of the same seeds are compared seed by seed."
        )
    if empty.any():
        some = int(empty_bins.any(1).sum())
        worst = int(empty.argmax())
        notes.append(
            f"In {some:,} of {plan.resamples:,} resamples at least one bin was empty and left out "
            f"of the mean over bins; most often bin {worst}, {int(empty[worst]):,} times. A number "
            f"that more than {100 * MAX_LOST:.0f} % of the resamples lack has no interval."
        )
    return tuple(notes)
