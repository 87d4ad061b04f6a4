"""All numbers that the page's figures show, computed here and only drawn there."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from depthbal.evaluation import metrics_of
from depthbal.evaluation.terms import metric_values
from depthbal.reports.binning import MIN_IMAGES, Binning, supporting_images
from depthbal.reports.comparing import STATISTICS
from depthbal.reports.page.curves import (
    changing,
    learning_curves,
    sigma_over_label,
    sigma_over_training,
)
from depthbal.reports.report import Report
from depthbal.reports.resampling import LEVEL
from depthbal.reports.results import FloatArray, Result, common_name
from depthbal.reports.vocabulary import jsonable, rounded

JOINT_BINS = 128
"""A joint histogram is shown with at most so many bins along each axis."""


def payload(report: Report) -> dict[str, Any]:
    """Return the page's data, JSON-able; parts without data are None or empty."""
    results, first, scores = report.results, report.first, report.first.scores
    (low, high), label = first.ends, scores.label
    names = {"label": label.name, "unit": label.unit, "items": report.items, "axis": report.axis}
    subsets = dict.fromkeys(subset for result in results for subset in result.scores.subsets)
    readouts = report.readouts if len(report.readouts) > 1 else []
    found = report.comparison
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
        "readouts": [{"key": key, "name": report.readout_name(key)} for key in readouts],
        "binnings": _binnings(report),
        "shotBands": _shot_bands(first),
        "defaults": {"subset": "all", "bin": _worst_bin(report)},
        "bins": _bin_tables(report),
        "training": _training(first),
        "priors": _priors(results, low, high),
        "joint": _joint_tables(report),
        "curves": learning_curves(results),
        "sigmaTraining": changing(sigma_over_training(results)),
        "sigmaUnit": first.sigma_unit,
        "sigmaLabel": changing(sigma_over_label(results)),
        "calibration": _calibration(report),
        "methods": [method._asdict() for method in found.methods] if found else [],
        "bands": _bands(report),
        "tradeoff": _tradeoff(report) if found else [],
        "level": LEVEL if found else None,
        "units": found.units.text if found else "",
    }


# ---- per bin ----


def bin_table(result: Result, binning: Binning, subset: str, readout: str) -> dict[str, FloatArray]:
    """Return {metric: (coarse,)} and "count" of a run."""
    terms = result.scores.terms
    sums = binning.members @ result.pooled[subset, readout]
    columns = dict(zip(metrics_of(terms), metric_values(sums, terms).T, strict=True))
    return {"count": sums[:, terms.index("count")], **columns}


def _bin_tables(report: Report) -> dict[str, list[dict[str, Any] | None]]:
    """Return {"binning/subset/read-out": one table per run, None where it has no such numbers}."""
    return {
        f"{number}/{subset}/{readout}": [
            {k: jsonable(v) for k, v in bin_table(result, binning, subset, readout).items()}
            if (subset, readout) in result.pooled
            else None
            for result in report.results
        ]
        for number, binning in enumerate(report.binnings)
        for subset, readout in dict.fromkeys(key for r in report.results for key in r.pooled)
    }


def _binnings(report: Report) -> list[dict[str, Any]]:
    first, scores = report.first, report.first.scores
    column = scores.terms.index("count")
    counts = {subset: scores.sums(subset)[..., column] for subset in scores.subsets}
    shots = np.array([shot or "" for shot in first.bins.shots])
    found = []
    for binning in report.binnings:
        widths, members = binning.high - binning.low, binning.members
        uneven = len(widths) > 2 and widths.max() > 2.5 * widths.min() and binning.low[0] > 0
        names = [set(shots[row > 0].tolist()) for row in members]
        found.append(
            {
                "name": binning.name,
                "low": jsonable(binning.low),
                "high": jsonable(binning.high),
                "log": bool(uneven),  # a constant ratio of widths is a logarithmic axis
                "images": {k: supporting_images(v, members).tolist() for k, v in counts.items()},
                "shots": [name.pop() if len(name) == 1 else "mixed" for name in names],
                "training": _shares(first, binning),
            }
        )
    return found


def _shares(result: Result, binning: Binning) -> list[Any]:
    """Return the share of training labels in every bin, in percent, (coarse,)."""
    if not (histogram := result.histogram):
        return []
    below = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / histogram.total
    low, high = (np.interp(ends, histogram.edges, below) for ends in (binning.low, binning.high))
    return jsonable(100 * (high - low))


def _shot_bands(result: Result) -> list[dict[str, Any]]:
    """Return neighbouring bins of one shot as one band: {"low", "high", "shot"}."""
    bands: list[dict[str, Any]] = []
    edges = [round(float(edge), 9) for edge in result.bins.edges]
    for number in np.flatnonzero(result.bins.scored):
        shot, low, high = result.bins.shots[number], edges[number], edges[number + 1]
        if bands and (bands[-1]["shot"], bands[-1]["high"]) == (shot, low):
            bands[-1]["high"] = high
        elif shot:
            bands.append({"low": low, "high": high, "shot": shot})
    return bands


def _worst_bin(report: Report) -> int:
    """Return the bin of the first binning where the first run errs most, among supported ones."""
    first, binning, info = report.first, report.binnings[0], report.main
    values = bin_table(first, binning, "all", first.scores.main)[info.key]
    values = np.where(binning.thin, np.nan, values) * (-1 if info.better == "higher" else 1)
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


def _priors(results: Sequence[Result], low: float, high: float) -> list[dict[str, Any]]:
    """Return every distinct scalar prior once: its runs, and its density in percent per unit."""
    found: dict[str, dict[str, Any]] = {}
    x = np.linspace(low, high, 400)
    for number, result in enumerate(results):
        prior = result.prior
        if prior is not None and not prior.event_dim and bool((prior.variances > 0).all()):
            density = jsonable(100 * prior.log_density(torch.from_numpy(x)).exp().numpy())
            one = {"x": jsonable(x), "runs": [], "components": len(prior.weights)}
            entry = found.setdefault(repr(density), {**one, "density": density})
            entry["runs"].append(number)
    return list(found.values())


def merged_joint(
    joint: npt.NDArray[np.int64], edges: FloatArray
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Merge neighbouring bins of a joint histogram (bins, bins + 2) until `JOINT_BINS` are left."""
    bins = len(edges) - 1
    starts = np.arange(0, bins, math.ceil(bins / JOINT_BINS))
    rows = np.add.reduceat(joint, starts, axis=0)
    inner = np.add.reduceat(rows[:, 1:-1], starts, axis=1)
    return np.hstack([rows[:, :1], inner, rows[:, -1:]]), np.append(edges[starts], edges[-1])


def _joint_tables(report: Report) -> dict[str, list[dict[str, Any] | None]]:
    """Return {read-out: per run its joint histogram and both margins, or None}.

    "row", "column", "share": truth bin, predicted bin and share of the truth bin's labels, of all
    cells that are not empty; "rows": labels per truth bin; "truth", "predicted": percent per label
    unit; "below", "beyond": percent of the predictions that leave the bins' range.
    """
    tables = {r: [_joint(result, r) for result in report.results] for r in report.readouts}
    return {readout: found for readout, found in tables.items() if any(found)}


def _joint(result: Result, readout: str) -> dict[str, Any] | None:
    if readout not in result.readouts or not result.scores.joint("all", readout).any():
        return None
    joint, edges = merged_joint(result.scores.joint("all", readout), result.bins.edges)
    truths, shares, widths = joint.sum(1), 100 * joint / joint.sum(), np.diff(edges)
    inner = joint[:, 1:-1]
    rows, columns = np.nonzero(inner)
    return {
        "edges": jsonable(edges),
        "row": rows.tolist(),
        "column": columns.tolist(),
        "share": [float(f"{share:.3g}") for share in inner[rows, columns] / truths[rows]],
        "rows": jsonable(truths),
        "truth": jsonable(shares.sum(1) / widths),
        "predicted": jsonable(shares[:, 1:-1].sum(0) / widths),
        "below": rounded(float(shares[:, 0].sum())),
        "beyond": rounded(float(shares[:, -1].sum())),
    }


def _calibration(report: Report) -> dict[str, Any] | None:
    """Return level, interval, coverage per group and per bin of every run, or None."""
    described = [result.metrics["calibration"] or {} for result in report.results]
    coverage = [result.scores.coverage("all") for result in report.results]
    if not any(described):
        return None
    first = next(filter(None, described))
    groups = [
        {group: row for group, row in found["all"].items() if row["coverage"] is not None}
        if found
        else None
        for found in described
    ]
    bins = [
        [None if counts is None else _shares_of(binning.members @ counts) for counts in coverage]
        for binning in report.binnings
    ]
    return {"level": first["level"], "interval": first["interval"], "groups": groups, "bins": bins}


def _shares_of(counts: FloatArray) -> list[float | int | None]:
    return [rounded(inside / of) if of > 0 else None for inside, of in counts.tolist()]


# ---- comparison ----


def _bands(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Return {"metric/binning": one band per method other than the first, against the first}."""
    bands: dict[str, list[dict[str, Any]]] = {}
    for pair in report.comparison.pairs if report.comparison else ():
        for (metric, binning), band in pair.bands.items():
            drawn = {name: jsonable(values) for name, values in band._asdict().items()}
            bands.setdefault(f"{metric}/{binning}", []).append({"method": pair.second, **drawn})
    return bands


def _tradeoff(report: Report) -> list[dict[str, Any]]:
    """Return every run's many-shot and few-shot error, where it has both, and its family.

    Runs whose settings differ in sigma and seed only are one family, which a line joins, as are
    the results of one method balanced afterwards with several sigmas.
    """
    results = report.results
    keys = [(_without_sigma(result.settings), result.posthoc) for result in results]
    points = []
    for run, (result, key) in enumerate(zip(results, keys, strict=True)):
        family = common_name([r.run.name for r, k in zip(results, keys, strict=True) if k == key])
        numbers = report.numbers((run,), report.main.key, "bins")
        many, few = rounded(numbers["many"]), rounded(numbers["few"])
        if many is not None and few is not None:
            name = family + (", balanced afterwards" if result.posthoc else "")
            sigma = rounded(result.noise_sigma)
            points.append({"run": run, "family": name, "sigma": sigma, "many": many, "few": few})
    return points


def _without_sigma(settings: Any) -> str:
    """Return nested settings as text, without the noise's start value."""

    def kept(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: kept(v) for k, v in value.items() if k != "init_noise_sigma"}

    return json.dumps(kept(settings), sort_keys=True, default=str)
