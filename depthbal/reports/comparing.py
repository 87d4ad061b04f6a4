"""All methods against each other on the same test images."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS, metrics_of
from depthbal.reports.comparison import (
    BinDifferences,
    Comparison,
    Difference,
    Method,
    Pair,
    Statistic,
)
from depthbal.reports.intervals import LEVEL, percentile_interval, simultaneous_band
from depthbal.reports.methods import methods_of
from depthbal.reports.protocols import comparable
from depthbal.reports.rebinning import Binning, binnings
from depthbal.reports.resampled_numbers import BinKey, GroupKey, Numbers, Plan, method_numbers
from depthbal.reports.resampling import MIN_UNITS, Units, units_of
from depthbal.reports.results import RunResult
from depthbal.reports.sentences import pair_sentence, resampling_notes
from depthbal.reports.tradeoff import tradeoff_points

BoolArray = npt.NDArray[np.bool_]

RESAMPLES = 2000


def compare(
    results: Sequence[RunResult], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison | None:
    """Compare results on the same test images; None for a single one.

    Runs that differ in nothing but the seed are one method: the mean of their metrics. The first
    result's method is the baseline; all methods are compared with all. Two statistics stand side by
    side for every metric and shot: the mean over the non-empty bins of all pixels, in which there
    is no draw of a mask, and the pooled number of metrics.json, over the balanced mask's pixels (or
    all samples where there is no mask).

    Intervals are percentiles over resamples of the test scenes (then of the images in them), the
    same resamples for every run, and over seeds where a method has several; see `image_weights` and
    `seed_weights`. A bin that is empty in a resample is left out of its mean and counted.

    Args:
        results: from `load_results`.
        resamples: how many, at least 100.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than 100 resamples, or results of different protocols.
    """
    if resamples < 100:
        raise ConfigError(f"expected at least 100 resamples for intervals, got {resamples}")
    if seed < 0:
        raise ConfigError(f"expected a seed of at least 0, got {seed}")
    if len(results) < 2:
        return None
    alike, notes = comparable(results)
    methods = methods_of(alike)
    units = units_of(_scenes(alike), _noun(alike[0]))
    plan = Plan(compared_metrics(alike), binnings(alike[0]), units, resamples, seed)
    measured, resampled = [], []
    for method in methods:
        one, many, counts = method_numbers(method, alike, plan)
        measured.append(one)
        resampled.append(many)
    has_pixels = alike[0].counts.sum(0) > 0
    empty = np.where(has_pixels, (counts == 0).sum(0), 0)
    usable = _supported(alike[0], plan.binnings, units)
    pairs = [
        _pair(first, second, methods, (measured, resampled), usable, plan, alike)
        for first, second in itertools.combinations(range(len(methods)), 2)
    ]
    several = any(len(method.runs) > 1 for method in methods)
    return Comparison(
        methods=methods,
        metrics=plan.metrics,
        pairs=tuple(pairs),
        binnings=plan.binnings,
        tradeoff=tradeoff_points(alike, methods),
        resamples=resamples,
        seed=seed,
        level=LEVEL,
        units=units.text,
        scenes=units.count,
        empty=empty,
        notes=(*notes, *resampling_notes(plan, empty, (counts == 0)[:, has_pixels], several)),
    )


def compared_metrics(results: Sequence[RunResult]) -> tuple[str, ...]:
    """Return the metrics to compare that all results have, the main one first."""
    everywhere = [set(metrics_of(result.terms)) for result in results]
    order = (results[0].main_metric, *metrics_of(results[0].terms))
    return tuple(
        name for name in dict.fromkeys(order) if all(name in known for known in everywhere)
    )


def _scenes(results: Sequence[RunResult]) -> list[str]:
    """Return the scene of every image, from any result that knows it."""
    columns = zip(*(result.groups for result in results), strict=True)
    return [next((group for group in column if group), "") for column in columns]


def _noun(result: RunResult) -> str:
    return "images" if (result.counts.sum(1) > 1).any() else "samples"


def _supported(result: RunResult, found: Sequence[Binning], units: Units) -> dict[str, BoolArray]:
    """Return per binning the bins that enough images and enough scenes support."""
    usable = {}
    for binning in found:
        pixels = result.counts @ binning.members.T > 0
        scenes = np.zeros((units.count, pixels.shape[1]), dtype=bool)
        np.logical_or.at(scenes, units.of_image, pixels)
        usable[binning.name] = ~binning.thin & (scenes.sum(0) >= MIN_UNITS)
    return usable


def _pair(
    first: int,
    second: int,
    methods: Sequence[Method],
    numbers: tuple[Sequence[Numbers], Sequence[Numbers]],
    usable: dict[str, BoolArray],
    plan: Plan,
    results: Sequence[RunResult],
) -> Pair:
    measured, resampled = ([side[first], side[second]] for side in numbers)
    statistics: tuple[Statistic, ...] = ("bins", "pooled")
    keys: list[GroupKey] = list(itertools.product(plan.metrics, GROUPS, statistics))
    differences = {key: _difference(key, measured, resampled, plan.units.count) for key in keys}
    bins = {
        key: _bin_differences(key, measured, resampled, usable[key[1]], plan.units.count)
        for key in resampled[0].bins
    }
    sentence = pair_sentence(methods[first], methods[second], differences, plan, results)
    return Pair(first, second, differences, bins, sentence)


def _difference(
    key: GroupKey, measured: Sequence[Numbers], resampled: Sequence[Numbers], units: int
) -> Difference:
    one, two = (float(side.groups[key][0]) for side in measured)
    if np.isnan(one) or np.isnan(two):
        return Difference(None, None, None, None, None)
    drawn = resampled[1].groups[key] - resampled[0].groups[key]
    low, high = (percentile_interval(drawn, units) if units >= MIN_UNITS else None) or (None, None)
    return Difference(one, two, two - one, low, high)


def _bin_differences(
    key: BinKey,
    measured: Sequence[Numbers],
    resampled: Sequence[Numbers],
    usable: BoolArray,
    units: int,
) -> BinDifferences:
    estimate = measured[1].bins[key][0] - measured[0].bins[key][0]
    drawn = resampled[1].bins[key] - resampled[0].bins[key]
    return BinDifferences(estimate, *simultaneous_band(estimate, drawn, usable, units))
