"""All methods against each other on the same test images, with intervals over scenes and seeds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS, metrics_of
from depthbal.evaluation.terms import metric_values
from depthbal.reports.binning import Binning, binnings
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
from depthbal.reports.results import FloatArray, Method, Result, methods_of

Statistic = Literal["bins", "pooled"]
"""How a group's number is averaged: over the non-empty bins of all pixels, in which no draw of a
mask is, or as the top level of metrics.json (balanced mask, all samples, or mean over images)."""
STATISTICS: tuple[Statistic, ...] = ("bins", "pooled")
RESAMPLES = 2000


class Difference(NamedTuple):
    """A metric of one group, second minus first, with its 95 % interval; None where unknown."""

    first: float | None = None
    second: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None


class Band(NamedTuple):
    """A metric in every bin (coarse,), second minus first, with a band; NaN where unknown."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


class Pair(NamedTuple):
    """A method, by its place, against the first; bands by metric and number of the binning."""

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
        pairs: of every other method with it.
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
    result's method is the baseline of the others. Two statistics stand side by
    side for every metric and shot: the mean over the non-empty bins of all pixels, in which there
    is no draw of a mask, and the headline of metrics.json.

    Intervals are percentiles over resamples of the test scenes, the same resamples for every run,
    and over seeds where a method has several. A bin that is empty in a resample is left out of its
    mean and counted.

    Args:
        results: from `load_results`.
        resamples: how many, at least 100.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than 100 resamples, or results of different protocols.
    """
    if resamples < 100 or seed < 0:
        raise ConfigError(
            "expected at least 100 resamples for intervals and a seed of at least 0, got "
            f"{resamples} and {seed}"
        )
    if len(results) < 2:
        return None
    alike, notes = comparable(results)
    first, methods = alike[0], methods_of(alike)
    columns = zip(*(result.scores.groups for result in alike), strict=True)
    scenes = [next((group for group in column if group), "") for column in columns]
    units = units_of(scenes, "images" if first.items == "pixels" else first.items)
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
    drawn = sums[0][..., alike[run].scores.terms.index("count")]  # the same for all
    counts = units.sums(first.counts)
    usable = [~b.thin & ((counts @ b.members.T > 0).sum(0) >= MIN_UNITS) for b in shown]
    pairs = [
        _pair(place, numbers, metrics, usable, units.count) for place in range(1, len(methods))
    ]
    empty = (drawn[1:] == 0) & (drawn[0] > 0)
    return Comparison(
        alike, methods, metrics, tuple(pairs), shown, units, resamples, seed, empty, notes
    )


def compared_metrics(results: Sequence[Result]) -> tuple[str, ...]:
    """Return the metrics to compare that all results have, the main one first."""
    known = [metrics_of(result.scores.terms) for result in results]
    order = dict.fromkeys((results[0].scores.main_metric, *known[0]))
    return tuple(name for name in order if all(name in names for names in known))


def _image_sums(result: Result) -> list[FloatArray]:
    """Return what adds up over images: (images, bins, terms), and the headline's groups.

    These are (images, groups, terms); or, for means over images, (images, groups, metrics + 1) each
    image's metrics and whether it has the group.
    """
    scores = result.scores
    everywhere = scores.sums("all")
    headline = everywhere if scores.headline == "all" else scores.sums()
    grouped = np.einsum("gb,ibt->igt", scores.bins.groups(), headline)
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
    members = scores.bins.groups()
    with np.errstate(invalid="ignore"):
        # a group's mean over the bins that are not empty
        of_bins = (members @ np.nan_to_num(fine)) / (members @ np.isfinite(fine))
        if scores.averaging == "images":
            headline = grouped[..., :-1] / grouped[..., -1:]
        else:
            headline = metric_values(grouped, scores.terms)
    found = [metric_values(binning.members @ everywhere, scores.terms) for binning in shown]
    wanted = [metrics_of(scores.terms).index(name) for name in metrics]
    return [array[..., wanted] for array in (of_bins, headline, *found)]


def _pair(
    place: int,
    numbers: Sequence[Sequence[FloatArray]],
    metrics: Sequence[str],
    usable: Sequence[npt.NDArray[np.bool_]],
    units: int,
) -> Pair:
    differences: dict[tuple[str, str, Statistic], Difference] = {}
    keys = itertools.product(enumerate(metrics), enumerate(GROUPS), enumerate(STATISTICS))
    for (m, metric), (g, group), (s, statistic) in keys:
        first, second = (numbers[n][s][:, g, m] for n in (0, place))
        change = second - first
        found = Difference()
        if np.isfinite(change[0]):
            ends = percentile_interval(change[1:], units) or (None, None)
            found = Difference(float(first[0]), float(second[0]), float(change[0]), *ends)
        differences[metric, group, statistic] = found
    bands = {}
    for number, supported in enumerate(usable):
        one, two = (numbers[n][len(STATISTICS) + number] for n in (0, place))
        for m, metric in enumerate(metrics):
            apart = two[..., m] - one[..., m]
            band = simultaneous_band(apart[0], apart[1:], supported, units)
            bands[metric, number] = Band(apart[0], *band)
    return Pair(place, differences, bands)
