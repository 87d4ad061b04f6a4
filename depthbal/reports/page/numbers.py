"""Numbers as text, and as short JSON."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

SIGNIFICANT = 7
"""Digits of numbers in the page's data: enough to compare with metrics.json, half its size."""


def fixed(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number with a true minus sign, "–" where there is none.

    Example:
        >>> fixed(-1.2345, 2), fixed(0.5, 1, sign=True), fixed(None, 2), fixed(-0.001, 2, sign=True)
        ('−1.23', '+0.5', '–', '0.00')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def short(value: float) -> str:
    """Return a number without trailing zeros or binary noise.

    Example:
        >>> short(0.7999999999999999), short(10.0), short(25000000)
        ('0.8', '10', '25000000')
    """
    return f"{round(value):d}" if value == round(value) else f"{value:.6g}"


def digits_for(scale: float) -> int:
    """Return how many decimals errors of this size are shown with: three figures or so.

    Example:
        >>> [digits_for(scale) for scale in (0.02, 0.3, 1.26, 7.1, 88.0)]
        [4, 3, 3, 2, 1]
    """
    if not (scale > 0 and math.isfinite(scale)):
        return 3
    if scale >= 5:
        return 2 if scale < 50 else 1
    return 3 if scale >= 0.1 else min(9, 2 - math.floor(math.log10(scale)))


def jsonable(values: npt.ArrayLike | Iterable[float]) -> list[Any]:
    """Return an array as nested lists of rounded numbers, None for what is not finite.

    Example:
        >>> jsonable([1 / 3, float("nan"), 2.0])
        [0.3333333, None, 2]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1:
        return [jsonable(row) for row in array]
    return [rounded(value) for value in array.tolist()]


def rounded(value: float | None) -> float | int | None:
    """Return a number with `SIGNIFICANT` digits; None where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    if value == round(value) and abs(value) < 2**53:
        return round(value)
    return float(f"{value:.{SIGNIFICANT}g}")
