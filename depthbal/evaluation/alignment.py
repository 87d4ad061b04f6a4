"""Alignments of a prediction to its truth: what is scored when scale or shift are not known."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Alignment = Literal["none", "median", "depth", "inverse"]
FloatMap = NDArray[np.floating]

ALIGNMENTS: dict[str, str] = {
    "none": "as predicted, in metres",
    "median": "times median(truth) / median(prediction) per image: not metric",
    "depth": "a * prediction + b, least squares in depth per image: not metric",
    "inverse": "1 / (a / prediction + b), least squares in inverse depth per image: not metric",
}


def align(preds: FloatMap, target: FloatMap, mask: NDArray[np.bool_], how: Alignment) -> FloatMap:
    r"""Fit the prediction of one image to its truth and return it, the same shape and type.

    "median": :math:`p \cdot med(y) / med(p)` (Zhou et al., CVPR 2017). "depth":
    :math:`a p + b` with the least :math:`\sum (a p + b - y)^2`. "inverse":
    :math:`1 / (a / p + b)` with the least :math:`\sum (a / p + b - 1 / y)^2` (Ranftl et al.,
    "Towards Robust Monocular Depth Estimation", TPAMI 2020). The sums run over pixels that count
    and whose prediction is positive and finite. With "inverse", a pixel that the fit puts beyond
    infinity becomes inf. Fewer than two such pixels, or a constant prediction, change nothing but
    the scale.

    Args:
        preds: (h, w) metres, or any unit where `how` fits it.
        target: (h, w) metres.
        mask: (h, w), True counts.
        how: one of `ALIGNMENTS`.

    Example:
        >>> truth = np.array([[1.0, 2.0, 4.0]])
        >>> align(2 * truth + 1, truth, truth > 0, "depth").round(6).tolist()
        [[1.0, 2.0, 4.0]]
    """
    usable = mask & np.isfinite(preds) & (preds > 0) & (target > 0)
    if how == "none" or not usable.any():
        return preds
    p, y = preds[usable].astype(np.float64), target[usable].astype(np.float64)
    if how == "median":
        return preds * preds.dtype.type(np.median(y) / np.median(p))
    if how == "depth":
        a, b = _line(p, y)
        return (a * preds + b).astype(preds.dtype)
    a, b = _line(1 / p, 1 / y)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = a / preds + b
        return np.where(inverse > 0, 1 / inverse, np.inf).astype(preds.dtype)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and offset of the least squares line; a constant x gets a scale alone."""
    centre, mean = x.mean(), y.mean()
    spread = ((x - centre) ** 2).sum()
    if not spread > 1e-12 * (x**2).sum():
        return float(mean / centre), 0.0
    slope = float(((x - centre) * (y - mean)).sum() / spread)
    return slope, float(mean - slope * centre)
