"""All methods against each other on the same test images, with intervals over scenes and seeds."""

import itertools
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS, metrics_of
from depthbal.evaluation.terms import metric_values
from depthbal.reports.report import MIN_IMAGES, STATISTICS, Binning, Comparison, Difference, Pair
from depthbal.reports.resampling import (
    MIN_UNITS,
    percentile_interval,
    resampled_sums,
    seed_weights,
    simultaneous_band,
    units_of,
)
from depthbal.reports.results import FloatArray, Result, methods_of
from depthbal.reports.vocabulary import value_text

RESAMPLES = 2000


def compare(results: Sequence[Result], resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare results on the same test images; a single one has no pairs.

    Runs that differ in nothing but the seed are one method: the mean of their metrics. Intervals
    are percentiles over resamples of the test scenes, the same for every run, and over seeds where
    a method has several. A bin that is empty in a resample is left out of its mean and counted.

    Args:
        results: from `load_results`; the method of the first one is the baseline.
        resamples: how many, at least 100.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than 100 resamples, or results of different protocols.
    """
    if resamples < 100 or seed < 0:
        raise ConfigError(f"expected resamples >= 100 and seed >= 0, got {resamples} and {seed}")
    alike, remarks = comparable(results)
    first, methods, shown = alike[0], methods_of(alike), binnings(alike[0])
    columns = zip(*(result.scores.groups for result in alike), strict=True)
    scenes = [next((group for group in column if group), "") for column in columns]
    units = units_of(scenes, "images" if first.items == "pixels" else first.items)
    known = [metrics_of(result.scores.terms) for result in alike]
    order = dict.fromkeys((first.scores.main_metric, *known[0]))
    metrics = tuple(name for name in order if all(name in names for names in known))
    numbers, empty = [], np.zeros((0, len(first.bins)), dtype=bool)
    for method in methods if len(results) > 1 else ():
        weights = seed_weights(method.seeds, resamples, seed)
        parts = []
        for place, run in enumerate(method.runs):
            sums = resampled_sums(_image_sums(alike[run]), units, resamples, seed)
            drawn = sums[0][..., alike[run].scores.terms.index("count")]  # the same for all
            empty = (drawn[1:] == 0) & (drawn[0] > 0)
            found = _numbers(sums, alike[run], metrics, shown)
            parts.append([array * weights[:, place, None, None] for array in found])
        numbers.append([sum(arrays[1:], start=arrays[0]) for arrays in zip(*parts, strict=True)])
    counts = units.sums(first.counts)
    usable = [~b.thin & ((counts @ b.members.T > 0).sum(0) >= MIN_UNITS) for b in shown]
    pairs = [
        Pair(n, *_apart(numbers[0], numbers[n], metrics, usable, units.count))
        for n in range(1, len(methods))
    ]
    return Comparison(
        alike, methods, metrics, tuple(pairs), shown, units, resamples, seed, empty, remarks
    )


def _image_sums(result: Result) -> list[FloatArray]:
    """Return what adds up over images: (images, bins, terms), and that of the headline's groups."""
    scores = result.scores
    everywhere = scores.sums("all")
    headline = everywhere if scores.headline == "all" else scores.sums()
    grouped = scores.bins.groups() @ headline
    if scores.averaging == "images":
        known = grouped[..., [scores.terms.index("count")]] > 0
        values = np.where(known, metric_values(grouped, scores.terms), 0.0)
        grouped = np.concatenate([values, known], axis=-1)  # (images, groups, metrics + 1)
    return [everywhere, grouped]


def _numbers(
    sums: Sequence[FloatArray], result: Result, metrics: Sequence[str], shown: Sequence[Binning]
) -> list[FloatArray]:
    """Return per statistic (n, groups, metrics), then per binning (n, coarse, metrics)."""
    (everywhere, grouped), terms = sums, result.scores.terms
    fine, members = metric_values(everywhere, terms), result.bins.groups()
    with np.errstate(invalid="ignore"):
        # a group's mean over the bins that are not empty
        of_bins = (members @ np.nan_to_num(fine)) / (members @ np.isfinite(fine))
        if result.scores.averaging == "images":
            headline = grouped[..., :-1] / grouped[..., -1:]
        else:
            headline = metric_values(grouped, terms)
    found = [metric_values(binning.members @ everywhere, terms) for binning in shown]
    wanted = [metrics_of(terms).index(name) for name in metrics]
    return [array[..., wanted] for array in (of_bins, headline, *found)]


def _apart(
    first: Sequence[FloatArray],
    second: Sequence[FloatArray],
    metrics: Sequence[str],
    usable: Sequence[npt.NDArray[np.bool_]],
    units: int,
) -> tuple[dict[Any, Difference], dict[Any, dict[str, FloatArray]]]:
    """Return the differences and bands of two methods, from what `_numbers` found for each."""
    differences, bands = {}, {}
    for s, statistic in enumerate(STATISTICS):
        for (g, group), (m, metric) in itertools.product(enumerate(GROUPS), enumerate(metrics)):
            one, two = first[s][:, g, m], second[s][:, g, m]
            apart, found = two - one, Difference()
            if np.isfinite(apart[0]):
                ends = percentile_interval(apart[1:], units) or (None, None)
                found = Difference(float(one[0]), float(two[0]), float(apart[0]), *ends)
            differences[metric, group, statistic] = found
    for number, supported in enumerate(usable):
        change = second[len(STATISTICS) + number] - first[len(STATISTICS) + number]
        for apart, metric in zip(np.moveaxis(change, -1, 0), metrics, strict=True):
            low, high = simultaneous_band(apart[0], apart[1:], supported, units)
            bands[metric, number] = {"estimate": apart[0], "low": low, "high": high}
    return differences, bands


# ---- what may be compared ----


def comparable(results: Sequence[Result]) -> tuple[list[Result], tuple[str, ...]]:
    """Return results that follow one protocol, and what a reader must know about them, in words.

    Read-out, checkpoint and epochs belong to the method and are only noted, as are shots by the
    same rule from another training histogram (the split depends on the seed): those of the first
    result count.
    """
    first, *others = results
    for other in others:
        if found := _differences(first, other):
            raise ConfigError(
                f"{other.name} cannot be compared with {first.name}: {'; '.join(found)}. "
                "Evaluate both with the same protocol on the same test data, or report them apart"
            )
    allowed: dict[str, list[Any]] = {
        "The read-out": [result.readout_name() for result in results],
        "The checkpoint": [result.scores.given.get("checkpoint") for result in results],
        "The number of epochs": [result.scores.given.get("epochs") for result in results],
    }
    notes = []
    for what, values in allowed.items():
        if len(set(values)) > 1:
            # names have commas: "mse, balanced afterwards (sigma 1)"
            named = "; ".join(f"{v} for {r.name}" for r, v in zip(results, values, strict=True))
            notes.append(f"{what} differs: {named}.")
    alike = []
    for result in results:
        if result.bins.shots == first.bins.shots:
            alike.append(result)
        else:
            scores = copy(result.scores)
            scores.bins = first.bins
            alike.append(replace(result, scores=scores))
            notes.append(
                f"The training histogram of {result.name} gives some bins other shots; all numbers "
                f"here use the shots of {first.name}."
            )
    return alike, tuple(notes)


def _differences(first: Result, other: Result) -> list[str]:
    """Return in words what keeps two results from being compared; nothing if nothing does."""
    mine, theirs = _protocol(first), _protocol(other)
    found: list[str] = []
    for what, value in mine.items():
        if value != theirs[what]:
            texts = value_text(theirs[what]), value_text(value)
            same = texts[0] == texts[1]  # of long lists only the length and the ends are shown
            found.append(f"other {what}" if same else "{} {} instead of {}".format(what, *texts))
    masks = [result.scores.given.get("mask") or {} for result in (other, first)]
    if masks[0].get("fingerprint") != masks[1].get("fingerprint"):
        shown = ("source", "seed", "pixels", "fingerprint")
        said = [", ".join(f"{key} {m[key]}" for key in shown if key in m) for m in masks]
        found.append("balanced mask ({}) instead of ({})".format(*(t or "none" for t in said)))
    names, others = first.scores.names, other.scores.names
    moved = [f"{b!r} instead of {a!r}" for a, b in zip(names, others, strict=False) if a != b]
    if len(names) != len(others):
        found.append(f"{len(others)} test images instead of {len(names)}")
    elif moved:
        found.append(f"other test images ({len(moved)} of {len(names)}, the first {moved[0]})")
    elif all(mine[what] == theirs[what] for what in ("bin edges", "scored bins")):
        changed = np.flatnonzero((first.counts != other.counts).any(1))
        if len(changed):
            found.append(
                f"other truths in {len(changed)} of {len(names)} test images (the first: "
                f"{names[changed[0]]}), such as those of another crop or size"
            )
        scenes = zip(first.scores.groups, other.scores.groups, strict=True)
        if any(a and b and a != b for a, b in scenes):
            found.append("other scenes of the test images")
    return found


def _protocol(result: Result) -> dict[str, Any]:
    """Return what must agree."""
    scores, bins, protocol = result.scores, result.bins, result.metrics["protocol"]
    data = protocol.get("data") or {}
    return {
        "label": "{} in {}".format(*scores.label[:2]),
        "bin edges": bins.edges.round(6).tolist(),
        "scored bins": np.flatnonzero(bins.scored).tolist(),
        "rule of the shots": bins.shot_rule,
        "protocol": protocol["name"],
        "main metric": scores.main_metric,
        "averaging": scores.averaging,
        "smallest prediction in ratios (m)": protocol.get("min_prediction_m"),
        "min_depth of the test data": data.get("min_depth"),
        "max_depth of the test data": data.get("max_depth"),
    }


# ---- the bins of figures ----


def binnings(result: Result) -> tuple[Binning, ...]:
    """Return the evaluation's own bins, and two coarser ones that suit the label.

    Depth (any label with relative errors): about 20 equal bins, and 12 log-spaced ones. Other
    labels: about 20 and about 10 equal bins, such as 1, 5 and 10 years. Widths are 1, 2 or 5 times
    a power of 10, and every edge is moved to the nearest edge of the fine bins.
    """
    edges, unit = result.bins.edges, result.scores.label.unit
    scored, (low, high) = np.flatnonzero(result.bins.scored), result.ends
    width = float(np.median(np.diff(edges)[scored]))
    fine = _width_name(width, unit)
    cuts: dict[str, FloatArray] = {fine: edges[scored[1:]]}
    relative = "relative" in result.scores.terms and low > 0
    for wanted in (20,) if relative else (20, 10):
        coarse = nice_width((high - low) / wanted)
        if coarse > 1.5 * width:
            cut = np.arange(math.ceil(low / coarse), math.ceil(high / coarse)) * coarse
            cuts[_width_name(coarse, unit)] = cut.astype(np.float64)
    if relative:
        cuts[f"log-spaced (edges on {fine})"] = np.geomspace(low, high, 13)[1:-1]
    found = []
    for name, cut in cuts.items():
        nearest = np.sort(np.abs(edges[None] - cut[:, None]).argmin(1))
        group = np.searchsorted(nearest, scored, side="right")
        _, start, which = np.unique(group, return_index=True, return_inverse=True)
        members = (np.arange(len(start))[:, None] == which) @ np.eye(len(edges) - 1)[scored]
        last = np.append(start[1:], len(scored)) - 1
        thin = (result.counts @ members.T > 0).sum(0) < MIN_IMAGES
        found.append(Binning(name, edges[scored[start]], edges[scored[last] + 1], members, thin))
    return tuple(found)


def nice_width(width: float) -> float:
    """Return the nearest of 1, 2 and 5 times a power of 10, by ratio."""
    exponent = math.floor(math.log10(width))
    candidates = [float(f"{digit}e{exponent + more}") for more in (0, 1) for digit in "125"]
    return min(candidates, key=lambda candidate: abs(math.log(candidate / width)))


def _width_name(width: float, unit: str) -> str:
    one = f"{width:.3g}" == "1" and len(unit) > 2  # 1 year, but 1 s
    return f"{width:.3g} {unit.removesuffix('s') if one else unit}"
