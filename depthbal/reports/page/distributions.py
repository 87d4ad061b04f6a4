"""Where training labels, test labels and predictions lie."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports.page.numbers import jsonable, rounded
from depthbal.reports.results import FloatArray, IntArray, RunResult

CURVE_POINTS = 400
JOINT_BINS = 128
"""A joint histogram is shown with at most so many bins along each axis."""


def training_histogram(result: RunResult, shots_edges: FloatArray) -> dict[str, Any] | None:
    """Return edges, density in percent per label unit, and the shot of every bin, or None."""
    histogram = result.histogram
    if histogram is None or not histogram.total > 0:
        return None
    shots = [shot or "" for shot in result.bins.shots]
    place = np.searchsorted(shots_edges, histogram.centers, side="right") - 1
    inside = (place >= 0) & (place < len(shots))
    return {
        "edges": jsonable(histogram.edges),
        "density": jsonable(100 * histogram.densities),
        "shots": [shots[p] if ok else "" for p, ok in zip(place, inside, strict=True)],
    }


def training_shares(histogram: Histogram | None, low: FloatArray, high: FloatArray) -> list[Any]:
    """Return the share of training labels between low and high, in percent, (bins,)."""
    if histogram is None or not histogram.total > 0:
        return []
    below = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / histogram.total
    ends = np.interp(high, histogram.edges, below), np.interp(low, histogram.edges, below)
    return jsonable(100 * (ends[0] - ends[1]))


def priors(results: Sequence[RunResult], low: float, high: float) -> list[dict[str, Any]]:
    """Return every distinct scalar prior once: its runs, and its density in percent per unit."""
    found: dict[str, dict[str, Any]] = {}
    x = np.linspace(low, high, CURVE_POINTS)
    for number, result in enumerate(results):
        prior = result.prior
        if prior is None or prior.event_dim or not bool((prior.variances > 0).all()):
            continue
        density = jsonable(100 * mixture_density(prior, x))
        entry = found.setdefault(
            repr(density), {"runs": [], "components": len(prior.weights), "density": density}
        )
        entry["runs"].append(number)
    return [{"x": jsonable(x), **entry} for entry in found.values()]


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


def merged_joint(joint: IntArray, edges: FloatArray) -> tuple[IntArray, FloatArray]:
    """Merge neighbouring bins of a joint histogram (bins, bins + 2) until `JOINT_BINS` are left.

    Example:
        >>> edges = np.arange(301.0)
        >>> joint, merged = merged_joint(np.ones((300, 302), dtype=np.int64), edges)
        >>> joint.shape, int(joint.sum()), merged[:2].tolist(), float(merged[-1])
        ((100, 102), 90600, [0.0, 3.0], 300.0)
    """
    bins = len(edges) - 1
    factor = math.ceil(bins / JOINT_BINS)
    starts = np.arange(0, bins, factor)
    rows = np.add.reduceat(joint, starts, axis=0)
    inner = np.add.reduceat(rows[:, 1:-1], starts, axis=1)
    return np.hstack([rows[:, :1], inner, rows[:, -1:]]), np.append(edges[starts], edges[-1])


def joint_tables(
    results: Sequence[RunResult], subset: str, readouts: Sequence[str]
) -> dict[str, list[dict[str, Any] | None]]:
    """Return {read-out: per run its joint histogram and both margins, or None}.

    "row", "column", "share": truth bin, predicted bin and share of the truth bin's labels, of all
    cells that are not empty; "rows": labels per truth bin; "truth", "predicted": percent per label
    unit; "below", "beyond": percent of the predictions that leave the bins' range.

    Args:
        results: the runs.
        subset: "mask" or "all".
        readouts: which to give.
    """
    tables = {
        readout: [_joint(result, subset, readout) for result in results] for readout in readouts
    }
    return {readout: found for readout, found in tables.items() if any(found)}


def _joint(result: RunResult, subset: str, readout: str) -> dict[str, Any] | None:
    stored = result.joint.get((subset, readout))
    if stored is None or not stored.sum():
        return None
    joint, edges = merged_joint(np.asarray(stored), result.bins.edges)
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
