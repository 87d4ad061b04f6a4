"""All methods against each other on the same test images, with intervals over scenes and seeds."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS, metrics_of
from depthbal.evaluation.terms import metric_slopes, metric_values
from depthbal.reports.report import MIN_IMAGES, STATISTICS, Binning, Comparison, Difference, Pair
from depthbal.reports.resampling import (
    BAND_UNITS,
    MIN_UNITS,
    Units,
    Weights,
    draw,
    jackknife_variance,
    joint_variance,
    resampled,
    seed_variance,
    seed_weights,
    simultaneous_band,
    studentised_interval,
    units_of,
    variances,
)
from depthbal.reports.results import FloatArray, Method, Result, methods_of
from depthbal.reports.vocabulary import value_text

RESAMPLES = 2000


class Sums(NamedTuple):
    """Terms that add up over images, for bins or groups of bins."""

    units: FloatArray  # (units, parts, terms)
    drawn: FloatArray  # (1 + resamples, parts, terms), first over all units once
    terms: tuple[str, ...]


class Numbers(NamedTuple):
    """A method's metrics over all resamples, and what they follow from."""

    runs: list[list[Sums]]  # of every run: per bin, per group of the headline, per binning
    own: list[list[FloatArray]]  # of every run, on the test set itself, as the next
    left_out: list[FloatArray]  # (units, groups, metrics) without each unit: the first two of them
    arrays: list[FloatArray]  # (1 + resamples, parts, metrics): means over bins, headline, binnings


def compare(results: Sequence[Result], resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare results on the same test images; a single one has no pairs.

    Runs that differ in nothing but the seed are one method: the mean of their metrics. Intervals
    are those of the bootstrap-t over the test scenes, the same resamples for every run, and over
    seeds where a method has several. A bin that is empty in a resample is left out of its mean and
    counted.

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
    counts, groups = units.sums(first.counts), first.bins.groups()
    weights = draw(units.count, resamples if len(methods) > 1 else 0, seed)
    empty = (resampled(weights, counts)[1:] == 0) & counts.any(0)
    usable = [~b.thin & ((counts @ b.members.T > 0).sum(0) >= BAND_UNITS) for b in shown]

    def numbers(method: Method) -> Numbers:
        runs = [_sums(alike[run], units, weights, shown) for run in method.runs]
        found = [_metrics(run, groups, metrics) for run in runs]
        share = seed_weights(method.seeds, len(weights) - 1, seed)
        means = [np.einsum("rs,srpm->rpm", share, parts) for parts in zip(*found, strict=True)]
        rest = [[Sums(s.units, s.drawn[0] - s.units, s.terms) for s in run[:2]] for run in runs]
        without = [_metrics(one, groups, metrics) for one in rest]
        left_out = [np.mean(parts, axis=0) for parts in zip(*without, strict=True)]
        return Numbers(runs, [[array[0] for array in one] for one in found], left_out, means)

    enough = units.count >= MIN_UNITS
    pairs, baseline = [], numbers(methods[0])
    for place, method in enumerate(methods[1:], start=1):
        found = numbers(method)
        paired = method.seeds == methods[0].seeds
        errors = _errors(baseline, found, paired, weights, groups, metrics)
        pairs.append(Pair(place, *_apart(baseline, found, errors, metrics, usable, enough)))
    support, pairs_of = (counts > 0).sum(0), tuple(pairs)
    return Comparison(
        alike, methods, metrics, pairs_of, shown, units, support, resamples, seed, empty, remarks
    )


def _sums(result: Result, units: Units, weights: Weights, shown: Sequence[Binning]) -> list[Sums]:
    """Return the sums of every bin, of the headline's groups, and of every binning."""
    scores = result.scores
    everywhere, terms = scores.sums("all"), scores.terms
    grouped = scores.bins.groups() @ (everywhere if scores.headline == "all" else scores.sums())
    parts = [(everywhere, terms), (grouped, terms)]
    if scores.averaging == "images":  # what is averaged is an image's metric
        values = metric_values(grouped, terms)
        has, ones = np.isfinite(values), np.ones_like(values[..., :1])
        names = [f"{what} {name}" for what in ("mean", "has") for name in metrics_of(terms)]
        parts[1] = np.concatenate([np.nan_to_num(values), has, ones], -1), (*names, "count")
    of_units = [(units.sums(array), names) for array, names in parts]
    every, headline = (Sums(array, resampled(weights, array), names) for array, names in of_units)
    unions = [Sums(b.members @ every.units, b.members @ every.drawn, terms) for b in shown]
    return [every, headline, *unions]


def _metrics(sums: Sequence[Sums], groups: FloatArray, metrics: Sequence[str]) -> list[FloatArray]:
    """Return metrics over all resamples: a group's mean over the bins, and of all other sums."""
    fine, *found = (
        metric_values(one.drawn, one.terms)[..., [_place(one, name) for name in metrics]]
        for one in sums
    )
    with np.errstate(invalid="ignore"):  # a mean over the bins that are not empty
        means = (groups @ np.nan_to_num(fine)) / (groups @ np.isfinite(fine))
    return [means, *found]


def _place(sums: Sums, metric: str) -> int:
    """Return which metric of some sums is meant: that of its name, or its mean over images."""
    known = metrics_of(sums.terms)
    return known.index(metric if metric in known else f"mean {metric}")


def _errors(
    first: Numbers,
    second: Numbers,
    paired: bool,
    weights: Weights,
    groups: FloatArray,
    metrics: Sequence[str],
) -> list[FloatArray]:
    """Return the standard errors of the second method's numbers less the first's, in all draws."""
    found = [np.zeros_like(array) for array in second.arrays]
    signed = [(-1 / len(first.runs), run) for run in first.runs]
    signed += [(1 / len(second.runs), run) for run in second.runs]
    every = first.runs[0][0]
    filled = every.drawn[..., every.terms.index("count")] > 0
    for m, metric in enumerate(metrics):
        (array, slopes), *others = (
            _linear([(share, run[part]) for share, run in signed], metric)
            for part in range(len(found))
        )
        for g, inside in enumerate(groups > 0):
            if not inside.any():
                continue
            share = filled[:, inside] / np.maximum(filled[:, inside].sum(1, keepdims=True), 1)
            of_group = slopes[:, inside] * share[..., None]
            found[0][:, g, m] = joint_variance(weights, array[:, inside], of_group)
        for out, other in zip(found[1:], others, strict=True):
            out[..., m] = variances(weights, *other)
    for out, one, two in zip(found, first.left_out, second.left_out, strict=False):
        out[0] = jackknife_variance(two - one)
    for part, out in enumerate(found):
        one, two = (np.stack([own[part] for own in both.own]) for both in (first, second))
        out += seed_variance(one, two, paired)
    return [np.sqrt(out) for out in found]


def _linear(signed: Sequence[tuple[float, Sums]], metric: str) -> tuple[FloatArray, FloatArray]:
    """Return the sums that a difference depends on, and its derivatives by them.

    The first sum is the count, which all runs share.
    """
    arrays, slopes = [], []
    for share, sums in signed:
        columns, by = metric_slopes(sums.drawn, sums.terms, _place(sums, metric))
        arrays.append(sums.units[..., columns])
        slopes.append(share * by)
    counts = [arrays[0][..., :1], sum(by[..., :1] for by in slopes)]
    own = [[one[..., 1:] for one in several] for several in (arrays, slopes)]
    array, derivatives = (np.concatenate([c, *o], -1) for c, o in zip(counts, own, strict=True))
    return array, derivatives


def _apart(
    first: Numbers,
    second: Numbers,
    errors: Sequence[FloatArray],
    metrics: Sequence[str],
    usable: Sequence[npt.NDArray[np.bool_]],
    enough: bool,
) -> tuple[dict[Any, Difference], dict[Any, dict[str, FloatArray]]]:
    """Return the differences of two methods with their intervals, and the bands."""
    differences, bands = {}, {}
    changes = [two - one for one, two in zip(first.arrays, second.arrays, strict=True)]
    for part, change in enumerate(changes):
        for m, metric in enumerate(metrics):
            apart, error = change[..., m], errors[part][..., m]
            if part >= len(STATISTICS):
                number = part - len(STATISTICS)
                low, high = simultaneous_band(apart, error, usable[number])
                bands[metric, number] = {"estimate": apart[0], "low": low, "high": high}
                continue
            for g, group in enumerate(GROUPS):
                one, two = (float(both.arrays[part][0, g, m]) for both in (first, second))
                found = Difference()
                if np.isfinite(apart[0, g]):
                    ends = studentised_interval(apart[:, g], error[:, g]) if enough else None
                    found = Difference(one, two, float(apart[0, g]), *(ends or (None, None)))
                differences[metric, group, STATISTICS[part]] = found
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
        "depth_range of the test data": data.get("depth_range"),
    }


# ---- the bins of figures ----


def binnings(result: Result) -> tuple[Binning, ...]:
    """Return the evaluation's own bins, and two coarser ones that suit the label.

    Depth (any label with relative errors): about 20 equal bins, and 12 log-spaced ones. Other
    labels: about 20 and about 10 equal bins, such as 1, 5 and 10 years. Widths are 1, 2 or 5 times
    a power of 10, and every edge is moved to the nearest edge of the fine bins.
    """
    edges, unit = result.bins.edges, result.scores.label.unit
    scored, (low, high) = np.flatnonzero(result.bins.scored), result.bins.ends
    widths = np.diff(edges)[scored]
    width, even = float(np.median(widths)), widths.max() < 1.5 * widths.min()
    fine = _width_name(width, unit) if even else f"{len(scored)} uneven bins"
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
