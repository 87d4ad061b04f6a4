"""Alignments of a prediction to its truth: what is scored when scale or shift are not known."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Alignment = Literal["none", "median", "depth", "inverse"]
FloatMap = NDArray[np.floating]

ALIGNMENTS: dict[str, str] = {
    "none": "as predicted",
    "median": "times median(truth) / median(prediction) per image: not metric",
    "depth": "a * prediction + b, least squares in depth per image: not metric",
    "inverse": "1 / (a / prediction + b), at most the largest truth, least squares in inverse "
    "depth per image: not metric",
}


def align(preds: FloatMap, target: FloatMap, mask: NDArray[np.bool_], how: Alignment) -> FloatMap:
    """Return the prediction of one image, (h, w), as it fits its truth best where `mask` is True.

    "median": Zhou et al., CVPR 2017; "inverse": Ranftl et al., TPAMI 2020. Fewer than two positive
    pixels, or a constant prediction, change nothing but the scale.
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
        fitted: FloatMap = 1 / np.maximum(a / preds + b, 1 / y.max())
    return fitted.astype(preds.dtype)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and offset of the least squares line; a constant x gets a scale alone."""
    centre, mean = x.mean(), y.mean()
    spread = ((x - centre) ** 2).sum()
    if not spread > 1e-12 * (x**2).sum():
        return float(mean / centre), 0.0
    slope = float(((x - centre) * (y - mean)).sum() / spread)
    return slope, float(mean - slope * centre)
