"""What is summed over pixels, and the metrics: functions of the means of these terms."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError

MIN_PREDICTION = 1e-3
"""Metres; smaller predictions are raised to it, in the logarithms and ratios only."""

MIN_ERROR = 1e-3
"""Label units; smaller absolute errors are raised to it, in their logarithm (metric gm) only: one
exact prediction must not make the geometric mean of a thousand errors 0."""


class _Errors:
    """Predictions beside truths, both (pixels,) float64, with what several terms share."""

    def __init__(self, preds: Tensor, target: Tensor) -> None:
        self.preds, self.target = preds, target

    @cached_property
    def error(self) -> Tensor:
        return self.preds - self.target

    @cached_property
    def absolute(self) -> Tensor:
        return self.error.abs()

    @cached_property
    def positive(self) -> Tensor:  # what logarithms and ratios take
        return self.preds.clamp(min=MIN_PREDICTION)

    @cached_property
    def log_error(self) -> Tensor:
        return (self.positive / self.target).log_()

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        return torch.maximum(self.positive, self.target), torch.minimum(self.positive, self.target)

    def within(self, factor: float) -> Tensor:
        larger, smaller = self.ends
        # a product decides ties exactly for float32 inputs, a quotient would round
        return (larger < smaller * factor).double()


_FUNCTIONS: dict[str, Callable[[_Errors], Tensor]] = {
    "count": lambda x: torch.ones_like(x.target),
    "error": lambda x: x.error,
    "absolute": lambda x: x.absolute,
    "squared": lambda x: x.error.square(),
    "relative": lambda x: x.absolute / x.target,
    "log10": lambda x: x.log_error.abs().mul_(1 / math.log(10)),
    "log_error": lambda x: x.log_error,
    "log_squared": lambda x: x.log_error.square(),
    "delta1": lambda x: x.within(1.25),
    "delta2": lambda x: x.within(1.25**2),
    "delta3": lambda x: x.within(1.25**3),
    "log_absolute": lambda x: x.absolute.clamp(min=MIN_ERROR).log_(),
}

TERMS: tuple[str, ...] = tuple(name for name in _FUNCTIONS if name != "log_absolute")
"""The terms of depth, in the order of the last dimension of the sums."""

LABEL_TERMS: tuple[str, ...] = ("count", "error", "absolute", "squared", "log_absolute")
"""The terms of labels that may be zero or negative (ages, coordinates)."""


def term_values(names: Sequence[str], preds: Tensor, target: Tensor) -> Iterator[Tensor]:
    """Yield the terms of every pixel, (pixels,) float64, of float64 predictions and truths."""
    errors = _Errors(preds, target)
    for name in names:
        if name not in _FUNCTIONS:
            raise DataError(f"expected terms among {list(_FUNCTIONS)}, got {name!r}")
        yield _FUNCTIONS[name](errors)


Array = npt.NDArray[np.float64]

_FORMULAS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any]]] = {
    "rmse": (("squared",), lambda m: np.sqrt(m["squared"])),
    "mse": (("squared",), lambda m: m["squared"]),
    "mae": (("absolute",), lambda m: m["absolute"]),
    "gm": (("log_absolute",), lambda m: np.exp(m["log_absolute"])),
    "abs_rel": (("relative",), lambda m: m["relative"]),
    "log10": (("log10",), lambda m: m["log10"]),
    "silog": (
        ("log_squared", "log_error"),
        # rounding may leave a variance of zero slightly negative
        lambda m: 100 * np.sqrt(np.clip(m["log_squared"] - m["log_error"] ** 2, 0, None)),
    ),
    "delta1": (("delta1",), lambda m: m["delta1"]),
    "delta2": (("delta2",), lambda m: m["delta2"]),
    "delta3": (("delta3",), lambda m: m["delta3"]),
    "bias": (("error",), lambda m: m["error"]),
}

_USED = {"count"}.union(*(needs for needs, _ in _FORMULAS.values()))


def metrics_of(terms: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that these terms determine; a term of no formula is one: its mean.

    Example:
        >>> metrics_of(["count", "squared"]), metrics_of(["count", "mpjpe"])
        (('rmse', 'mse'), ('mpjpe',))
    """
    found = [name for name, (needs, _) in _FORMULAS.items() if set(needs) <= set(terms)]
    return (*found, *(term for term in dict.fromkeys(terms) if term not in _USED))


def metric_values(sums: Array, terms: Sequence[str]) -> Array:
    """Turn sums of terms (..., terms) into metrics (..., metrics), ordered as `metrics_of`.

    | metric | value, with <x> the mean of a term |
    |---|---|
    | rmse, mse, mae, bias | sqrt <squared>, <squared>, <absolute>, <error> (prediction - truth) |
    | gm | exp <log_absolute>, the geometric mean of the absolute errors |
    | abs_rel, log10, delta1..3 | <relative>, <log10>, <delta1..3> |
    | silog | 100 sqrt(<d^2> - <d>^2), d = ln prediction - ln truth, as KITTI defines it |
    | any other term | its mean |

    Both are float64; where the count is 0, metrics are NaN.

    Example:
        >>> metric_values(np.array([[4.0, 36.0]]), ["count", "squared"])
        array([[3., 9.]])
    """
    count = sums[..., list(terms).index("count")]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {name: sums[..., k] / count for k, name in enumerate(terms)}
    found = [_FORMULAS[m][1](means) if m in _FORMULAS else means[m] for m in metrics_of(terms)]
    return np.stack(found, axis=-1)
