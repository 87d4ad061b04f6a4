"""Coarser bins as unions of fine ones."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthbal.reports.results import FloatArray, Result

MIN_IMAGES = 20
"""A bin supported by fewer images than this is flagged: its numbers rest on too little."""


@dataclass(frozen=True)
class Binning:
    """Bins of a figure: each is a union of neighbouring scored bins of the evaluation."""

    name: str  # for people: "0.1 m", "0.5 m", "log-spaced (edges on 0.1 m)"
    low: FloatArray  # (coarse,) label units
    high: FloatArray  # the last bin takes everything beyond
    members: FloatArray  # (coarse, bins) 1 where the fine bin belongs to the coarse one
    thin: npt.NDArray[np.bool_]  # (coarse,) whether fewer than MIN_IMAGES images have a pixel in it


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
