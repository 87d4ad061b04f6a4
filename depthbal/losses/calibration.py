"""Balancing by calibration: the mean label given a prediction, in another world than the data's."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from depthbal.losses.posthoc import BalanceMap
from depthbal.losses.readout import LEVEL
from depthbal.losses.reduction import compute_dtype
from depthbal.priors import Histogram, World

FloatArray = npt.NDArray[np.float64]

PSEUDO_IMAGES = 1.0
"""Images' worth of labels at the prediction itself that every cell of predictions gets."""


class CalibratedMap(BalanceMap):
    """A monotone map of predictions and its 68.27 % interval, linear between nodes.

    The curves (4, nodes) are predictions, increasing, what they become, and the lower and upper end
    of the label's interval. Beyond the outer nodes the ends' values hold, cut to the label range.
    """

    way = "calibration"

    def __init__(self, curves: npt.ArrayLike, tau: float, label_range: tuple[float, float]) -> None:
        self.curves = torch.tensor(np.asarray(curves, dtype=np.float64))
        self.tau, self.label_range = tau, label_range
        self._ends = label_range
        self.noise_sigma = None

    def locations(self, preds: Tensor) -> Tensor:
        """Return the balanced predictions: a calibration has no other location."""
        return self._curves(preds)[0]

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the 68.27 % interval of the label given the prediction."""
        _, lower, upper = self._curves(preds)
        return lower, upper

    _balance = locations

    def _curves(self, preds: Tensor) -> tuple[Tensor, ...]:
        """Return the three curves at the predictions."""
        curves = self.curves.to(preds.device)
        nodes = curves[0]
        x = self.require_finite(preds).double().clamp(nodes[0], nodes[-1]).contiguous()
        right = torch.searchsorted(nodes, x).clamp(1, len(nodes) - 1)
        share = (x - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
        found = (torch.lerp(curve[right - 1], curve[right], share) for curve in curves[1:])
        return tuple(y.clamp(*self._ends).to(compute_dtype(preds)) for y in found)

    def parameters(self) -> dict[str, Any]:
        """Return what makes the map again but for its range, JSON-able."""
        return {"tau": self.tau, "curves": self.curves.tolist()}


def calibrate(
    preds: FloatArray,
    counts: FloatArray,
    label_sums: FloatArray,
    images: FloatArray,
    edges: FloatArray,
    label_range: tuple[float, float],
    tau: float = 1.0,
    world: World | Histogram = "uniform",
) -> CalibratedMap:
    """Return the map to E_w[y | prediction] that a joint histogram of prediction and label implies.

        f(c) = isotonic regression of  (m_c E_w[y | c] + k c) / (m_c + k),   k = 1 image,
        w(y) = (p_target(y) / p(y))^tau,   m_c = (sum_b w_b n_cb)^2 / sum_b ((w_b n_cb)^2 / i_cb)

    over cells c of predictions and bins b of labels, n_cb labels of i_cb images; p(y) is their own
    distribution. m_c is how many images stand behind the weighted mean, counting (Kish) that a rare
    label's few have large weights. Beyond the outermost cells the map returns to the identity over
    one label range, so that it jumps nowhere. The interval's ends are weighted quantiles of the
    label in each cell, made monotone too. ``counts``, ``label_sums`` and ``images`` (from how many)
    are (cells, bins), ``preds`` (cells,) the mean predictions, ``edges`` (bins + 1,).

    Source: Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) with the empirical p(y | prediction)
    in the place of the normal one; Kish, Survey Sampling, 1965.
    """
    total = counts.sum(0)
    kernel = Histogram(edges, total).relative_to(world, tau).counts
    weights = np.divide(np.diff(edges), kernel, out=np.zeros(len(total)), where=total > 0)
    seen = counts.sum(1) > 0
    mass = counts[seen] * weights
    cell, nodes = mass.sum(1), preds[seen]
    support = cell**2 / (mass**2 / images[seen].clip(1)).sum(1)
    share = support / (support + PSEUDO_IMAGES)
    means = share * (label_sums[seen] @ weights) / cell + (1 - share) * nodes
    values = isotonic_regression(means, weights=cell / share).x
    spread = np.append(edges[:-1], max(edges[-1], label_range[1]))  # the last bin has no end
    lower, upper = (
        isotonic_regression(_quantile(mass / cell[:, None], spread, q), weights=cell).x
        for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    )
    curves = np.stack([nodes, values, np.minimum(lower, values), np.maximum(upper, values)])
    reach = max(label_range[1] - label_range[0], 2 * float(np.abs(values - nodes).max()))
    outside = []
    for end, side in ((curves[:, 0], -1), (curves[:, -1], 1)):
        far = end[0] + side * reach
        outside.append(np.array([far, far, *(far + end[2:] - end[1])]))
    return CalibratedMap(np.column_stack([outside[0], curves, outside[1]]), tau, label_range)


def _quantile(shares: FloatArray, edges: FloatArray, probability: float) -> FloatArray:
    """Return a quantile of every row of shares of the bins, labels spread evenly within bins."""
    below = np.cumsum(shares, axis=1)
    index = np.minimum((below < probability).sum(1), shares.shape[1] - 1)
    inside = np.take_along_axis(shares, index[:, None], 1)[:, 0]
    rest = probability - (np.take_along_axis(below, index[:, None], 1)[:, 0] - inside)
    found: FloatArray = edges[index] + np.diff(edges)[index] * (rest / inside).clip(0, 1)
    return found
