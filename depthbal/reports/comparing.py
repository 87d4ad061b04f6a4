"""All methods against each other on the same test images, with intervals over scenes and seeds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS, metrics_of
from depthbal.reports.binning import Binning, binnings, metric_values
from depthbal.reports.methods import Method, methods_of
from depthbal.reports.protocols import comparable
from depthbal.reports.resampling import (
    MIN_UNITS,
    Units,
    percentile_interval,
    resampled_sums,
    seed_weights,
    simultaneous_band,
    units_of,
)
from depthbal.reports.results import FloatArray, Result

Statistic = Literal["bins", "pooled"]
"""How a group's number is averaged.

"bins": mean over the non-empty bins, all pixels: no draw of a mask is in it.
"pooled": the numbers of metrics.json: over the balanced mask's pixels, or over all samples where
there is no mask, or the mean over images where the protocol says so.
"""
STATISTICS: tuple[Statistic, ...] = ("bins", "pooled")
RESAMPLES = 2000


class Difference(NamedTuple):
    """A metric of one group of bins: second minus first.

    Attributes:
        first, second: the two methods' numbers (mean over seeds).
        estimate: second - first; None where the group has no pixels.
        low, high: ends of the 95 % interval; None where there is none.
    """

    first: float | None
    second: float | None
    estimate: float | None
    low: float | None
    high: float | None


class Band(NamedTuple):
    """A metric in every bin of a binning: second minus first, all pixels.

    Attributes:
        estimate: (coarse,) NaN for empty bins.
        low, high: (coarse,) band that holds in all its bins at once with 95 %; NaN where there is
            none (too few images or scenes).
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Pair:
    """The second method against the first.

    Attributes:
        first, second: places in `Comparison.methods`; 0 is the baseline.
        differences: (metric, group, statistic) -> Difference; group "overall", "many", "medium",
            "few".
        bands: (metric, number of the binning) -> Band.
    """

    first: int
    second: int
    differences: Mapping[tuple[str, str, Statistic], Difference]
    bands: Mapping[tuple[str, int], Band]


@dataclass(frozen=True)
class Comparison:
    """All methods against each other, on the same images.

    Attributes:
        results: with the bins of the first.
        methods: the first is the baseline.
        metrics: that were compared, the main one first.
        pairs: of all methods; those with the baseline come first.
        binnings: those of `Pair.bands`.
        units: what was drawn.
        resamples, seed: how many, and of which draw.
        empty: (resamples, bins) where a bin that has pixels was empty and left out.
        notes: what a reader must know about the protocols, in words.
    """

    results: Sequence[Result]
    methods: tuple[Method, ...]
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...]
    binnings: tuple[Binning, ...]
    units: Units
    resamples: int
    seed: int
    empty: npt.NDArray[np.bool_]
    notes: tuple[str, ...]


def compare(
    results: Sequence[Result], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison | None:
    """Compare results on the same test images; None for a single one.

    Runs that differ in nothing but the seed are one method: the mean of their metrics. The first
    result's method is the baseline; all methods are compared with all. Two statistics stand side by
    side for every metric and shot: the mean over the non-empty bins of all pixels, in which there
    is no draw of a mask, and the headline of metrics.json.

    Intervals are percentiles over resamples of the test scenes, the same resamples for every run,
    and over seeds where a method has several; see `resampled_sums` and `seed_weights`. A bin that
    is empty in a resample is left out of its mean and counted.

    Args:
        results: from `load_results`.
        resamples: how many, at least 100.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than 100 resamples, or results of different protocols.
    """
    if resamples < 100 or seed < 0:
        raise ConfigError(
            f"expected at least 100 resamples for intervals and a seed of at least 0, got "
            f"{resamples} and {seed}"
        )
    if len(results) < 2:
        return None
    alike, notes = comparable(results)
    first, methods = alike[0], methods_of(alike)
    columns = zip(*(result.scores.groups for result in alike), strict=True)
    scenes = [next((group for group in column if group), "") for column in columns]
    units = units_of(scenes, "images" if (first.counts.sum(1) > 1).any() else "samples")
    shown, metrics = binnings(first), compared_metrics(alike)
    numbers = []
    for method in methods:
        weights = seed_weights(method.seeds, resamples, seed)
        parts = []
        for place, run in enumerate(method.runs):
            sums = resampled_sums(_image_sums(alike[run]), units, resamples, seed)
            found = _numbers(sums, alike[run], metrics, shown)
            parts.append([array * weights[:, place, None, None] for array in found])
        numbers.append([sum(arrays[1:], start=arrays[0]) for arrays in zip(*parts, strict=True)])
    drawn = sums[0][..., first.scores.terms.index("count")]  # of the truths, the same for all
    usable = [_supported(first, binning, units) for binning in shown]
    pairs = [
        Pair(
            one,
            two,
            _differences(numbers[one], numbers[two], metrics, units.count),
            _bands(numbers[one], numbers[two], metrics, usable, units.count),
        )
        for one, two in itertools.combinations(range(len(methods)), 2)
    ]
    empty = (drawn[1:] == 0) & (drawn[0] > 0)
    return Comparison(
        alike, methods, metrics, tuple(pairs), shown, units, resamples, seed, empty, notes
    )


def compared_metrics(results: Sequence[Result]) -> tuple[str, ...]:
    """Return the metrics to compare that all results have, the main one first."""
    everywhere = [set(metrics_of(result.scores.terms)) for result in results]
    scores = results[0].scores
    order = dict.fromkeys((scores.main_metric, *metrics_of(scores.terms)))
    return tuple(name for name in order if all(name in known for known in everywhere))


def _image_sums(result: Result) -> list[FloatArray]:
    """Return what adds up over images: (images, bins, terms), and the headline's groups.

    These are (images, groups, terms); or, for means over images, (images, groups, metrics + 1) each
    image's metrics and whether it has the group.
    """
    scores = result.scores
    everywhere = scores.sums("all")
    headline = everywhere if scores.headline == "all" else scores.sums()
    grouped = np.einsum("gb,ibt->igt", scores.bins.groups().numpy(), headline)
    if scores.averaging == "images":
        known = grouped[..., [scores.terms.index("count")]] > 0
        values = np.where(known, metric_values(grouped, scores.terms), 0.0)
        grouped = np.concatenate([values, known], axis=-1)
    return [everywhere, grouped]


def _numbers(
    sums: Sequence[FloatArray], result: Result, metrics: Sequence[str], shown: Sequence[Binning]
) -> list[FloatArray]:
    """Return per statistic (n, groups, metrics), then per binning (n, coarse, metrics)."""
    everywhere, grouped = sums
    scores = result.scores
    fine = metric_values(everywhere, scores.terms)
    members = scores.bins.groups().numpy() > 0
    with np.errstate(invalid="ignore"):
        if scores.averaging == "images":
            headline = grouped[..., :-1] / grouped[..., -1:]
        else:
            headline = metric_values(grouped, scores.terms)
        found = [np.stack([mean_of_known(fine[:, inside]) for inside in members], 1), headline]
    found += [metric_values(binning.members @ everywhere, scores.terms) for binning in shown]
    wanted = [metrics_of(scores.terms).index(name) for name in metrics]
    return [array[..., wanted] for array in found]


def mean_of_known(values: FloatArray) -> FloatArray:
    """Return the mean over the second axis of what is not NaN; NaN where nothing is.

    Example:
        >>> with np.errstate(invalid="ignore"):
        ...     mean_of_known(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
        array([ 2., nan])
    """
    known = np.isfinite(values)
    mean: FloatArray = np.where(known, values, 0.0).sum(1) / known.sum(1)
    return mean


def _supported(result: Result, binning: Binning, units: Units) -> npt.NDArray[np.bool_]:
    """Return which bins enough images and enough scenes support."""
    scenes = (units.sums(result.counts) @ binning.members.T > 0).sum(0)
    supported: npt.NDArray[np.bool_] = ~binning.thin & (scenes >= MIN_UNITS)
    return supported


def _differences(
    first: Sequence[FloatArray], second: Sequence[FloatArray], metrics: Sequence[str], units: int
) -> dict[tuple[str, str, Statistic], Difference]:
    found = {}
    keys = itertools.product(enumerate(metrics), enumerate(GROUPS), enumerate(STATISTICS))
    for (m, metric), (g, group), (s, statistic) in keys:
        one, two = first[s][:, g, m], second[s][:, g, m]
        low, high = percentile_interval(two[1:] - one[1:], units) or (None, None)
        known = bool(np.isfinite(two[0] - one[0]))
        ends = (float(one[0]), float(two[0]), float(two[0] - one[0]), low, high)
        found[metric, group, statistic] = Difference(*(ends if known else (None,) * 5))
    return found


def _bands(
    first: Sequence[FloatArray],
    second: Sequence[FloatArray],
    metrics: Sequence[str],
    usable: Sequence[npt.NDArray[np.bool_]],
    units: int,
) -> dict[tuple[str, int], Band]:
    found = {}
    for number, wide in enumerate(usable):
        apart = second[len(STATISTICS) + number] - first[len(STATISTICS) + number]
        for m, metric in enumerate(metrics):
            estimate, drawn = apart[0, :, m], apart[1:, :, m]
            found[metric, number] = Band(estimate, *simultaneous_band(estimate, drawn, wide, units))
    return found
