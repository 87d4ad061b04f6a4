"""All numbers that the page's figures show, computed here and only drawn there."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from depthbal.evaluation import GROUPS, metrics_of
from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports.binning import MIN_IMAGES, Binning, metric_values, supporting_images
from depthbal.reports.comparing import STATISTICS
from depthbal.reports.methods import common_name
from depthbal.reports.page.curves import (
    changing,
    learning_curves,
    sigma_over_label,
    sigma_over_training,
)
from depthbal.reports.resampling import LEVEL
from depthbal.reports.results import FloatArray, Result
from depthbal.reports.tables import Report
from depthbal.reports.vocabulary import jsonable, rounded

CURVE_POINTS = 400
JOINT_BINS = 128
"""A joint histogram is shown with at most so many bins along each axis."""


def payload(report: Report) -> dict[str, Any]:
    """Return the page's data, JSON-able; parts without data are None or empty."""
    results, first, words = report.results, report.first, report.words
    low, high = first.ends
    readouts = [{"key": key, "name": report.readout_name(key)} for key in report.readouts]
    runs = [
        {"name": result.name, "main": result.scores.main, **asdict(style)}
        for result, style in zip(results, report.styles, strict=True)
    ]
    return {
        "label": {**asdict(words), "axis": words.axis, "low": low, "high": high},
        "weakBelow": MIN_IMAGES,
        "runs": runs,
        "metrics": [asdict(info) for info in report.metrics],
        "statistics": {key: report.statistic_name(key) for key in STATISTICS},
        "subsets": [{"key": key, "name": words.subset(key)} for key in report.subsets],
        "readouts": readouts if len(readouts) > 1 else [],
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
        **_comparison(report),
    }


# ---- per bin ----


def bin_table(result: Result, binning: Binning, subset: str, readout: str) -> dict[str, FloatArray]:
    """Return {metric: (coarse,)} and "count" of a run."""
    terms = result.scores.terms
    sums = binning.members @ result.pooled[subset, readout]
    values = metric_values(sums, terms)
    found = {name: values[:, m] for m, name in enumerate(metrics_of(terms))}
    return {"count": sums[:, terms.index("count")], **found}


def _bin_tables(report: Report) -> dict[str, list[dict[str, Any] | None]]:
    """Return {"binning/subset/read-out": one table per run, None where it has no such numbers}."""
    keys = dict.fromkeys(key for result in report.results for key in result.pooled)
    return {
        f"{number}/{subset}/{readout}": [
            {k: jsonable(v) for k, v in bin_table(result, binning, subset, readout).items()}
            if (subset, readout) in result.pooled
            else None
            for result in report.results
        ]
        for number, binning in enumerate(report.binnings)
        for subset, readout in keys
    }


def _binnings(report: Report) -> list[dict[str, Any]]:
    first = report.first
    count = first.scores.terms.index("count")
    counts = {subset: first.scores.sums(subset)[..., count] for subset in first.scores.subsets}
    shots = np.array([shot or "" for shot in first.bins.shots])
    found = []
    for binning in report.binnings:
        widths = binning.high - binning.low
        members = [set(shots[row > 0].tolist()) for row in binning.members]
        found.append(
            {
                "name": binning.name,
                "low": jsonable(binning.low),
                "high": jsonable(binning.high),
                # a constant ratio of neighbouring widths is a logarithmic axis
                "log": len(widths) > 2
                and bool(widths.max() > 2.5 * widths.min() and binning.low[0] > 0),
                "images": {
                    subset: supporting_images(pixels, binning.members).tolist()
                    for subset, pixels in counts.items()
                },
                "shots": [names.pop() if len(names) == 1 else "mixed" for names in members],
                "training": _shares(first.histogram, binning.low, binning.high),
            }
        )
    return found


def _shot_bands(result: Result) -> list[dict[str, Any]]:
    """Return neighbouring bins of one shot as one band: {"low", "high", "shot"}."""
    bands: list[dict[str, Any]] = []
    for number, shot in enumerate(result.bins.shots):
        low, high = (round(float(edge), 9) for edge in result.bins.edges[number : number + 2])
        if not shot or not result.bins.scored[number]:
            continue
        if bands and bands[-1]["shot"] == shot and bands[-1]["high"] == low:
            bands[-1]["high"] = high
        else:
            bands.append({"low": low, "high": high, "shot": shot})
    return bands


def _worst_bin(report: Report) -> int:
    """Return the bin of the first binning where the first run errs most, among supported ones."""
    first, binning, info = report.first, report.binnings[0], report.main
    values = bin_table(first, binning, "all", first.scores.main)[info.key]
    values[binning.thin] = np.nan
    if not np.isfinite(values).any():
        return 0
    return int(np.nanargmin(values) if info.better == "higher" else np.nanargmax(values))


# ---- distributions ----


def _training(result: Result) -> dict[str, Any] | None:
    """Return edges, density in percent per label unit, and the shot of every bin, or None."""
    histogram = result.histogram
    if histogram is None or not histogram.total > 0:
        return None
    shots = [shot or "" for shot in result.bins.shots]
    place = np.searchsorted(result.bins.edges, histogram.centers, side="right") - 1
    return {
        "edges": jsonable(histogram.edges),
        "density": jsonable(100 * histogram.densities),
        "shots": [shots[p] if 0 <= p < len(shots) else "" for p in place],
    }


def _shares(histogram: Histogram | None, low: FloatArray, high: FloatArray) -> list[Any]:
    """Return the share of training labels between low and high, in percent, (bins,)."""
    if histogram is None or not histogram.total > 0:
        return []
    below = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / histogram.total
    ends = np.interp(high, histogram.edges, below), np.interp(low, histogram.edges, below)
    return jsonable(100 * (ends[0] - ends[1]))


def _priors(results: Sequence[Result], low: float, high: float) -> list[dict[str, Any]]:
    """Return every distinct scalar prior once: its runs, and its density in percent per unit."""
    found: dict[str, dict[str, Any]] = {}
    x = np.linspace(low, high, CURVE_POINTS)
    for number, result in enumerate(results):
        prior = result.prior
        if prior is None or prior.event_dim or not bool((prior.variances > 0).all()):
            continue
        density = jsonable(100 * mixture_density(prior, x))
        entry = {"x": jsonable(x), "runs": [], "components": len(prior.weights), "density": density}
        found.setdefault(repr(density), entry)["runs"].append(number)
    return list(found.values())


def mixture_density(prior: GaussianMixture, x: FloatArray) -> FloatArray:
    """Return p(x) = sum_k w_k N(x; mu_k, v_k) of a scalar mixture, (n,).

    Example:
        >>> one = GaussianMixture([1.0], [0.0], [1.0])
        >>> round(float(mixture_density(one, np.array([0.0]))[0]), 6)
        0.398942
    """
    weights, means, variances = (
        part.numpy().astype(np.float64) for part in (prior.weights, prior.means, prior.variances)
    )
    normal = np.exp(-0.5 * (x[:, None] - means) ** 2 / variances)
    density: FloatArray = (normal / np.sqrt(2 * math.pi * variances)) @ weights
    return density


def merged_joint(
    joint: npt.NDArray[np.int64], edges: FloatArray
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Merge neighbouring bins of a joint histogram (bins, bins + 2) until `JOINT_BINS` are left.

    Example:
        >>> edges = np.arange(301.0)
        >>> joint, merged = merged_joint(np.ones((300, 302), dtype=np.int64), edges)
        >>> joint.shape, int(joint.sum()), merged[:2].tolist(), float(merged[-1])
        ((100, 102), 90600, [0.0, 3.0], 300.0)
    """
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
    tables = {
        readout: [_joint(result, readout) for result in report.results]
        for readout in report.readouts
    }
    return {readout: found for readout, found in tables.items() if any(found)}


def _joint(result: Result, readout: str) -> dict[str, Any] | None:
    stored = result.scores.joint("all", readout) if readout in result.readouts else None
    if stored is None or not stored.any():
        return None
    joint, edges = merged_joint(stored, result.bins.edges)
    total, widths = joint.sum(), np.diff(edges)
    inner = joint[:, 1:-1]
    rows, columns = np.nonzero(inner)
    share = inner[rows, columns] / joint.sum(1)[rows]
    return {
        "edges": jsonable(edges),
        "row": rows.tolist(),
        "column": columns.tolist(),
        "share": [float(f"{value:.3g}") for value in share],
        "rows": jsonable(joint.sum(1)),
        "truth": jsonable(100 * joint.sum(1) / total / widths),
        "predicted": jsonable(100 * inner.sum(0) / total / widths),
        "below": rounded(100 * float(joint[:, 0].sum() / total)),
        "beyond": rounded(100 * float(joint[:, -1].sum() / total)),
    }


def _calibration(report: Report) -> dict[str, Any] | None:
    """Return level, interval, coverage per group and per bin of every run, or None."""
    described = [result.metrics["calibration"] for result in report.results]
    first = next((found for found in described if found), None)
    if first is None:
        return None
    groups = [
        {
            group: {"coverage": rounded(row["coverage"]), "count": row["count"]}
            for group in GROUPS
            if (row := found["all"][group])["coverage"] is not None
        }
        if found and "all" in found
        else None
        for found in described
    ]
    coverage = [result.scores.coverage("all") for result in report.results]
    return {
        "level": first["level"],
        "interval": first["interval"],
        "subset": "all",
        "groups": groups,
        "bins": [
            [None if counts is None else _covered(binning.members @ counts) for counts in coverage]
            for binning in report.binnings
        ],
    }


def _covered(counts: FloatArray) -> list[float | int | None]:
    return [rounded(float(inside / of)) if of > 0 else None for inside, of in counts]


# ---- comparison ----


def _comparison(report: Report) -> dict[str, Any]:
    found = report.comparison
    if found is None:
        return {"methods": [], "bands": {}, "tradeoff": [], "level": None, "units": ""}
    bands: dict[str, list[dict[str, Any]]] = {}
    for pair in found.pairs:
        for (metric, binning), band in pair.bands.items() if pair.first == 0 else ():
            drawn = {name: jsonable(values) for name, values in band._asdict().items()}
            bands.setdefault(f"{metric}/{binning}", []).append({"method": pair.second, **drawn})
    return {
        "methods": [asdict(method) for method in found.methods],
        "bands": bands,
        "tradeoff": _tradeoff(report),
        "level": LEVEL,
        "units": found.units.text,
    }


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
        if numbers["many"] is not None and numbers["few"] is not None:
            points.append(
                {
                    "run": run,
                    "family": family + (", balanced afterwards" if result.posthoc else ""),
                    "sigma": rounded(result.noise_sigma),
                    "many": rounded(numbers["many"]),
                    "few": rounded(numbers["few"]),
                }
            )
    return points


def _without_sigma(settings: Any) -> str:
    """Return nested settings as text, without the noise's start value."""

    def kept(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: kept(v) for k, v in value.items() if k != "init_noise_sigma"}

    return json.dumps(kept(settings), sort_keys=True, default=str)
