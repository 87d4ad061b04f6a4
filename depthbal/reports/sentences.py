"""What a comparison found, in sentences that say over what it holds."""

from collections.abc import Sequence

from depthbal.evaluation import GROUPS
from depthbal.reports.comparing import Comparison, Difference, Pair
from depthbal.reports.resampling import FEW_UNITS, LEVEL, MAX_LOST, MIN_UNITS
from depthbal.reports.results import Result
from depthbal.reports.vocabulary import MetricInfo, Words, fixed


def pair_sentence(comparison: Comparison, pair: Pair, info: MetricInfo, words: Words) -> str:
    """Return what two methods differ in, main metric, and over what that holds."""
    first, second = (comparison.methods[place].name for place in (pair.first, pair.second))
    differences = [(group, pair.differences[info.key, group, "bins"]) for group in GROUPS]
    found = [_clause(group, d, info) for group, d in differences if d.estimate is not None]
    if not found:
        return f"{second} against {first}: no scored bin has {words.items}."
    return (
        f"{second} against {first}, {info.name} as the mean over the bins of {words.label}, all "
        f"{words.items}: {'; '.join(found)}. {_scope(comparison, pair)}"
    )


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


def _clause(group: str, difference: Difference, info: MetricInfo) -> str:
    two, one = (fixed(value, info.digits) for value in (difference.second, difference.first))
    unit = f" {info.unit}" if info.unit else ""
    change = fixed(difference.estimate, info.digits, sign=True)
    text = f"{two} instead of {one}{unit}: {change}"
    shot = group if group == "overall" else f"{group}-shot"
    low, high = difference.low, difference.high
    if low is None or high is None:
        return f"{shot} {text}, no interval"
    verdict = "higher" if low > 0 else "lower" if high < 0 else "no difference found"
    verdict = "the same" if low == high == 0 else verdict
    ends = " to ".join(fixed(end, info.digits, sign=True) for end in (low, high))
    return f"{shot} {verdict} ({text}, {100 * LEVEL:.0f} % interval {ends})"


def _scope(comparison: Comparison, pair: Pair) -> str:
    first, second = comparison.methods[pair.first], comparison.methods[pair.second]
    enough = comparison.units.count >= MIN_UNITS
    over = f"This holds {'over' if enough else 'only on'} {comparison.units.text}"
    sizes = (len(first.runs), len(second.runs))
    if sizes == (1, 1):
        runs = {comparison.results[method.runs[0]].run for method in (first, second)}
        if len(runs) == 1:
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


def notes_of(comparison: Comparison) -> list[str]:
    """Return what a reader must know about protocols and resampling."""
    units, resamples, notes = comparison.units, comparison.resamples, list(comparison.notes)
    if units.count < MIN_UNITS:
        return [
            *notes,
            f"No intervals: {units.text} are too few to draw from, {MIN_UNITS} are needed.",
        ]
    notes.append(
        f"Intervals: central {100 * LEVEL:.0f} % of {resamples:,} resamples of {units.text} (seed "
        f"{comparison.seed}), a little wider where these are few; every interval on its own, not "
        "corrected for their number. Bands over bins hold in all their bins at once."
    )
    if units.count < FEW_UNITS:
        notes.append(
            f"{units.text} are few: the intervals, above all those of means over bins, may "
            "hold less often than they say."
        )
    if any(len(method.runs) > 1 for method in comparison.methods):
        notes.append(
            "Where a method has several seeds, intervals allow for the variation between them by "
            "Student's t; methods of the same seeds are compared seed by seed."
        )
    if comparison.empty.any():
        times = comparison.empty.sum(0)
        worst, some = int(times.argmax()), int(comparison.empty.any(1).sum())
        notes.append(
            f"In {some:,} of {resamples:,} resamples at least one bin was empty and left out "
            f"of the mean over bins; most often bin {worst}, {int(times[worst]):,} times. A number "
            f"that more than {100 * MAX_LOST:.0f} % of the resamples lack has no interval."
        )
    return notes


def repetitions(comparison: Comparison, results: Sequence[Result]) -> list[str]:
    """Say which runs a method's one name stands for."""
    return [
        f"{method.name}: mean of {'; '.join(results[run].name for run in method.runs)}."
        for method in comparison.methods
        if len(method.runs) > 1
    ]
