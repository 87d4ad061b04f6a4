"""Coarser bins as unions of fine ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from depthbal.evaluation.terms import scores
from depthbal.reports.results import FloatArray, Result

MIN_IMAGES = 20
"""A bin supported by fewer images than this is flagged: its numbers rest on too little."""

# Coarse bins wanted over the label range; the width is the nearest of 1, 2, 5 times a power of 10.
_COARSE, _COARSER, _LOG = 20, 10, 12


@dataclass(frozen=True)
class Binning:
    """Bins of a figure: each is a union of neighbouring scored bins of the evaluation.

    Attributes:
        name: for people: "0.1 m", "0.5 m", "log-spaced (edges on 0.1 m)".
        low, high: (coarse,) ends of every bin, label units; the last takes everything beyond.
        members: (coarse, bins) float64, 1 where the fine bin belongs to the coarse one; sums over
            coarse bins are ``members @ pooled``.
        images: (coarse,) test images with a pixel in the bin.
    """

    name: str
    low: FloatArray
    high: FloatArray
    members: FloatArray
    images: npt.NDArray[np.int64]

    @property
    def thin(self) -> npt.NDArray[np.bool_]:
        """Which bins are supported by fewer than `MIN_IMAGES` images, (coarse,)."""
        return self.images < MIN_IMAGES


def binnings(result: Result) -> tuple[Binning, ...]:
    """Return the evaluation's own bins, and two coarser ones that suit the label.

    Depth (any label with relative errors): about 20 equal bins, and log-spaced ones. Other labels:
    about 20 and about 10 equal bins, such as 1, 5 and 10 years. Widths are 1, 2 or 5 times a power
    of 10, and every edge is moved to the nearest edge of the fine bins.
    """
    edges, unit = result.bins.edges, result.scores.label.unit
    scored = np.flatnonzero(result.bins.scored)
    low, high = result.ends
    width = float(np.median(np.diff(edges)[scored]))
    fine = _width_name(width, unit)
    found = [union(result, fine, scored)]
    relative = "relative" in result.scores.terms and low > 0
    for wanted in (_COARSE,) if relative else (_COARSE, _COARSER):
        coarse = nice_width((high - low) / wanted)
        if coarse > 1.5 * width:
            cut = np.arange(math.ceil(low / coarse), math.ceil(high / coarse)) * coarse
            found.append(union(result, _width_name(coarse, unit), _groups(result, cut)))
    if relative:
        cut = np.geomspace(low, high, _LOG + 1)[1:-1]
        found.append(union(result, f"log-spaced (edges on {fine})", _groups(result, cut)))
    return tuple({binning.name: binning for binning in reversed(found)}.values())[::-1]


def union(result: Result, name: str, groups: npt.NDArray[np.integer]) -> Binning:
    """Return bins that join the scored bins of equal ``groups`` (scored bins,), not decreasing."""
    scored, edges = np.flatnonzero(result.bins.scored), result.bins.edges
    values, start, which = np.unique(groups, return_index=True, return_inverse=True)
    members = np.zeros((len(values), len(result.bins)))
    members[which, scored] = 1.0
    last = np.append(start[1:], len(scored)) - 1
    images = supporting_images(result.counts, members)
    return Binning(name, edges[scored[start]], edges[scored[last] + 1], members, images)


def supporting_images(counts: FloatArray, members: FloatArray) -> npt.NDArray[np.int64]:
    """Return how many images have a counted pixel in every coarse bin, (coarse,).

    Example:
        >>> supporting_images(np.array([[3.0, 0.0], [1.0, 1.0]]), np.eye(2)).tolist()
        [2, 1]
    """
    return np.asarray((counts @ members.T > 0).sum(0), dtype=np.int64)


def nice_width(width: float) -> float:
    """Return the nearest of 1, 2 and 5 times a power of 10, by ratio.

    Example:
        >>> [nice_width(width) for width in (0.465, 6.0, 12.0, 38.0)]
        [0.5, 5.0, 10.0, 50.0]
    """
    exponent = math.floor(math.log10(width))
    candidates = [
        float(f"{digit}e{power}") for power in (exponent, exponent + 1) for digit in "125"
    ]
    return min(candidates, key=lambda candidate: abs(math.log(candidate / width)))


def metric_values(sums: FloatArray, terms: Sequence[str]) -> FloatArray:
    """Return (..., metrics) of (..., terms) sums, in the order of `metrics_of`; NaN without pixels.

    Example:
        >>> metric_values(np.array([[4.0, 36.0], [0.0, 0.0]]), ["count", "squared"])[:, 0]
        array([ 3., nan])
    """
    found: FloatArray = scores(torch.from_numpy(np.ascontiguousarray(sums)), terms).numpy()
    return found


def _groups(result: Result, cut: FloatArray) -> npt.NDArray[np.int64]:
    """Return for every scored bin the number of cuts below it, moved to the nearest fine edge."""
    scored = np.flatnonzero(result.bins.scored)
    nearest = np.abs(result.bins.edges[None] - cut[:, None]).argmin(1)
    return np.searchsorted(np.sort(nearest), scored, side="right").astype(np.int64)


def _width_name(width: float, unit: str) -> str:
    one = f"{width:.3g}" == "1" and len(unit) > 2  # 1 year, but 1 s
    return f"{width:.3g} {unit.removesuffix('s') if one else unit}"
