"""All numbers that the page's figures show, computed here and only drawn there."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from depthbal.evaluation import metrics_of
from depthbal.evaluation.terms import metric_values
from depthbal.reports.report import MIN_IMAGES, STATISTICS, Binning, Comparison
from depthbal.reports.resampling import LEVEL
from depthbal.reports.results import FloatArray, Result, common_name
from depthbal.reports.vocabulary import curve_name, jsonable, rounded

JOINT_BINS = 128
"""A joint histogram is shown with at most so many bins along each axis."""

MAX_POINTS = 400
"""A longer curve is shown by means over equally many consecutive points."""

Entries = list[dict[str, Any]]


def payload(report: Comparison) -> dict[str, Any]:
    """Return the page's data, JSON-able; parts without data are None or empty."""
    results, first, several = report.results, report.first, len(report.results) > 1
    (low, high), label = first.bins.ends, first.scores.label
    names = {"label": label.name, "unit": label.unit, "items": report.items, "axis": report.axis}
    subsets = dict.fromkeys(subset for result in results for subset in result.scores.subsets)
    readouts = list(dict.fromkeys(readout for result in results for readout in result.readouts))
    choices = [{"key": key, "name": report.readout_name(key)} for key in readouts]
    joint = {r: [_joint(result, r) for result in results] for r in readouts}
    return {
        "label": {**names, "low": low, "high": high},
        "weakBelow": MIN_IMAGES,
        "runs": [
            {"name": result.name, "main": result.scores.main, **style}
            for result, style in zip(results, report.styles, strict=True)
        ],
        "metrics": [asdict(info) for info in report.metrics],
        "statistics": {key: report.statistic_name(key) for key in STATISTICS},
        "subsets": [{"key": key, "name": report.subset_name(key)} for key in subsets],
        "readouts": choices if len(choices) > 1 else [],
        "binnings": [_binning(first, binning) for binning in report.binnings],
        "shotBands": _shot_bands(first),
        "defaults": {"subset": "all", "bin": _worst_bin(report)},
        "bins": {
            f"{number}/{subset}/{readout}": [
                _bin_table(result, binning, subset, readout) for result in results
            ]
            for number, binning in enumerate(report.binnings)
            for subset, readout in dict.fromkeys(key for r in results for key in r.pooled)
        },
        "training": _training(first),
        "priors": _priors(results, low, high),
        "joint": {readout: tables for readout, tables in joint.items() if any(tables)},
        "curves": _learning_curves(results),
        "sigmaTraining": _changing(_sigma_over_training(results)),
        "sigmaUnit": first.sigma_unit,
        "sigmaLabel": _changing(_sigma_over_label(results)),
        "calibration": _calibration(report),
        "methods": [method._asdict() for method in report.methods] if several else [],
        "bands": _bands(report),
        "tradeoff": _tradeoff(report) if several else [],
        "level": LEVEL if several else None,
        "units": report.units.text if several else "",
    }


# ---- per bin ----


def _bin_table(result: Result, binning: Binning, subset: str, readout: str) -> Any:
    """Return {metric: (coarse,)} and "count" of a run, None where it has no such numbers."""
    if (subset, readout) not in result.pooled:
        return None
    terms, sums = result.scores.terms, binning.members @ result.pooled[subset, readout]
    columns = zip(metrics_of(terms), metric_values(sums, terms).T, strict=True)
    counts = jsonable(sums[:, terms.index("count")])
    return {"count": counts, **{name: jsonable(values) for name, values in columns}}


def _binning(first: Result, binning: Binning) -> dict[str, Any]:
    widths, members = binning.high - binning.low, binning.members
    uneven = len(widths) > 2 and widths.max() > 2.5 * widths.min() and binning.low[0] > 0
    shots = np.array([shot or "" for shot in first.bins.shots])
    names = [set(shots[row > 0].tolist()) for row in members]
    column = first.scores.terms.index("count")
    counts = {subset: first.scores.sums(subset)[..., column] for subset in first.scores.subsets}
    training = []  # share of training labels in percent
    if histogram := first.histogram:
        below = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / histogram.total
        ends = (np.interp(ends, histogram.edges, below) for ends in (binning.high, binning.low))
        training = jsonable(100 * np.subtract(*ends))
    return {
        "name": binning.name,
        "low": jsonable(binning.low),
        "high": jsonable(binning.high),
        "log": bool(uneven),  # a constant ratio of widths is a logarithmic axis
        "images": {k: (v @ members.T > 0).sum(0).tolist() for k, v in counts.items()},
        "shots": [name.pop() if len(name) == 1 else "mixed" for name in names],
        "training": training,
    }


def _shot_bands(result: Result) -> Entries:
    """Return neighbouring bins of one shot as one band: {"low", "high", "shot"}."""
    bands: Entries = []
    edges = result.bins.edges.round(9).tolist()
    for number in np.flatnonzero(result.bins.scored):
        shot, low, high = result.bins.shots[number], edges[number], edges[number + 1]
        if bands and (bands[-1]["shot"], bands[-1]["high"]) == (shot, low):
            bands[-1]["high"] = high
        elif shot:
            bands.append({"low": low, "high": high, "shot": shot})
    return bands


def _worst_bin(report: Comparison) -> int:
    """Return the bin of the first binning where the first run errs most, among supported ones."""
    first, binning, info = report.first, report.binnings[0], report.main
    table = _bin_table(first, binning, "all", first.scores.main)
    values = np.where(binning.thin, np.nan, np.array(table[info.key], dtype=float))
    values *= -1 if info.better == "higher" else 1
    return int(np.nanargmax(values)) if np.isfinite(values).any() else 0


# ---- distributions ----


def _training(result: Result) -> dict[str, Any] | None:
    """Return edges, density in percent per label unit, and the shot of every bin, or None."""
    if not (histogram := result.histogram):
        return None
    shots = [shot or "" for shot in result.bins.shots]
    place = np.searchsorted(result.bins.edges, histogram.centers, side="right") - 1
    return {
        "edges": jsonable(histogram.edges),
        "density": jsonable(100 * histogram.densities),
        "shots": [shots[p] if 0 <= p < len(shots) else "" for p in place],
    }


def _priors(results: Sequence[Result], low: float, high: float) -> Entries:
    """Return every distinct scalar prior once: its runs, and its density in percent per unit."""
    found: dict[str, dict[str, Any]] = {}
    x = np.linspace(low, high, 400)
    for number, result in enumerate(results):
        prior = result.prior
        if prior is not None and not prior.event_dim and bool((prior.variances > 0).all()):
            density = jsonable(100 * prior.log_density(torch.from_numpy(x)).exp().numpy())
            one = {"x": jsonable(x), "runs": [], "components": len(prior.weights)}
            found.setdefault(repr(density), {**one, "density": density})["runs"].append(number)
    return list(found.values())


def _joint(result: Result, readout: str) -> dict[str, Any] | None:
    """Return a run's joint histogram, in at most `JOINT_BINS` bins, and its margins, or None.

    "row", "column", "share": truth bin, predicted bin and share of the truth bin's labels, of all
    cells that are not empty; "rows": labels per truth bin; "truth", "predicted": percent per label
    unit; "below", "beyond": percent of the predictions that leave the bins' range.
    """
    if readout not in result.readouts or not (fine := result.scores.joint("all", readout)).any():
        return None
    bins = len(result.bins)
    starts = np.arange(0, bins, math.ceil(bins / JOINT_BINS))
    edges = np.append(result.bins.edges[starts], result.bins.edges[-1])
    merged = np.add.reduceat(fine, starts, axis=0)
    inner = np.add.reduceat(merged[:, 1:-1], starts, axis=1)
    truths, percent, widths = merged.sum(1), 100 / merged.sum(), np.diff(edges)
    rows, columns = np.nonzero(inner)
    return {
        "edges": jsonable(edges),
        "row": rows.tolist(),
        "column": columns.tolist(),
        "share": [float(f"{share:.3g}") for share in inner[rows, columns] / truths[rows]],
        "rows": jsonable(truths),
        "truth": jsonable(percent * truths / widths),
        "predicted": jsonable(percent * inner.sum(0) / widths),
        "below": rounded(percent * float(merged[:, 0].sum())),
        "beyond": rounded(percent * float(merged[:, -1].sum())),
    }


def _calibration(report: Comparison) -> dict[str, Any] | None:
    """Return level, interval, coverage per group and per bin of every run, or None."""
    described = [result.metrics["calibration"] for result in report.results]
    if not any(described):
        return None
    first = next(filter(None, described))
    groups = [
        found and {g: row for g, row in found["all"].items() if row["coverage"] is not None}
        for found in described
    ]

    def shares(binning: Binning, counts: FloatArray | None) -> list[Any] | None:
        pairs = None if counts is None else (binning.members @ counts).tolist()
        return pairs and [rounded(inside / of) if of > 0 else None for inside, of in pairs]

    coverage = [result.scores.coverage("all") for result in report.results]
    bins = [[shares(binning, counts) for counts in coverage] for binning in report.binnings]
    return {"level": first["level"], "interval": first["interval"], "groups": groups, "bins": bins}


# ---- comparison ----


def _bands(report: Comparison) -> dict[str, Entries]:
    """Return {"metric/binning": one band per method other than the first, against the first}."""
    found: dict[str, Entries] = {}
    for pair in report.pairs:
        for (metric, number), band in pair.bands.items():
            ends = {name: jsonable(values) for name, values in band.items()}
            found.setdefault(f"{metric}/{number}", []).append({"method": pair.second, **ends})
    return found


def _tradeoff(report: Comparison) -> Entries:
    """Return every run's many-shot and few-shot error; runs that differ in sigma are a family."""
    results, points = report.results, []
    keys = [(_without_sigma(result.settings), result.posthoc) for result in results]
    for run, (result, key) in enumerate(zip(results, keys, strict=True)):
        family = common_name([r.run.name for r, k in zip(results, keys, strict=True) if k == key])
        numbers = report.numbers((run,), report.main.key, "bins")
        many, few = rounded(numbers["many"]), rounded(numbers["few"])
        if many is not None and few is not None:
            name = family + (", balanced afterwards" if result.posthoc else "")
            sigma = rounded(result.noise_sigma)
            points.append({"run": run, "family": name, "sigma": sigma, "many": many, "few": few})
    return points


def _without_sigma(value: Any) -> Any:
    """Return nested settings without the noise's start value."""
    if not isinstance(value, dict):
        return value
    return {k: _without_sigma(v) for k, v in value.items() if k != "init_noise_sigma"}


# ---- curves over the training, and the noise scale ----


def _line(result: Result, name: str) -> dict[str, Any] | None:
    """Return a logged quantity; of more than `MAX_POINTS` points the means over stretches."""
    if name not in result.curves:
        return None
    steps, values = result.curves[name]
    stretch = -(-len(steps) // MAX_POINTS)
    starts = np.arange(0, len(steps), stretch)
    ends = np.append(starts[1:], len(steps))
    means = np.add.reduceat(values, starts) / (ends - starts)
    return {"x": jsonable(steps[ends - 1]), "y": jsonable(means)}


def _learning_curves(results: Sequence[Result]) -> Entries:
    """Return one panel per logged quantity that is no learning rate and no noise scale."""
    main = results[0].scores.main_metric
    first = ("train/loss_epoch", "train/loss", f"val/{main}_bins", f"val/{main}")

    def rank(name: str) -> int:  # the noisy loss of steps last
        if name in first:
            return first.index(name)
        return 9 if name.endswith("_step") else 5 if name.startswith("val/") else 6

    names = dict.fromkeys(
        name
        for result in results
        for name, (steps, _) in result.curves.items()
        if len(steps) > 1 and not name.startswith("lr-") and "noise" not in name
    )
    return [
        {"name": curve_name(name), "lines": [_line(result, name) for result in results]}
        for name in sorted(names, key=rank)
    ]


def _sigma_over_training(results: Sequence[Result]) -> Entries:
    """Return the lines of sigma over the steps: {"run", "name", "x", "y"}."""
    names = ("sigma", "sigma_near", "sigma_middle", "sigma_far")
    return [
        {"run": number, "name": name.replace("_", " "), **line}
        for number, result in enumerate(results)
        for name in names
        if not result.posthoc and (line := _line(result, f"train/noise_{name}"))
    ]


def _sigma_over_label(results: Sequence[Result]) -> Entries:
    """Return the last sigma over the predicted label: {"run", "x", "y"}.

    A constant sigma is two points. One that follows the prediction is, from its logged values,
    sigma(p) = min(softplus(a + b p), cap); where only near, middle and far are known, these three.
    """
    lines = []
    for number, result in enumerate(results):
        last = {name: float(y[-1]) for name, (_, y) in result.curves.items()}
        places = [last.get(f"train/noise_sigma_{place}") for place in ("near", "middle", "far")]
        three = [sigma for sigma in places if sigma is not None]
        x, y = np.linspace(*result.bins.ends, 2), np.full(2, result.noise_sigma or math.nan)
        if len(three) == 3 and not result.posthoc:
            x, y = np.linspace(*result.bins.ends, 3), np.array(three)
            if "train/noise_a" in last and "train/noise_b" in last:
                x = np.linspace(*result.bins.ends, 100)
                softplus = np.logaddexp(0.0, last["train/noise_a"] + last["train/noise_b"] * x)
                # sigma is monotone in the label, so that the largest end is the cap where it holds
                y = np.minimum(softplus, max(three))
        if "error" in result.scores.terms and np.isfinite(y).all():
            lines.append({"run": number, "x": jsonable(x), "y": jsonable(y)})
    return lines


def _changing(lines: Entries) -> Entries:
    """Return the lines if one of them is not flat: flat ones alone make an empty-looking figure."""
    flat = all(math.isclose(min(line["y"]), max(line["y"]), rel_tol=1e-6) for line in lines)
    return [] if flat else lines
