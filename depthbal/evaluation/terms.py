"""What is summed over pixels, and the metrics: functions of the means of these terms."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from depthbal.errors import DataError

MIN_PREDICTION = 1e-3
"""Metres; smaller predictions are raised to it, in the logarithms and ratios only."""

MIN_ERROR = 1e-3
"""Label units; smaller absolute errors are raised to it, in their logarithm (metric gm) only."""


class PixelErrors:
    """Predictions beside truths, float64, with the intermediate results that terms share.

    Args:
        preds: (pixels,) float64 in label units.
        target: (pixels,) float64 in label units.
    """

    def __init__(self, preds: Tensor, target: Tensor) -> None:
        self.preds = preds
        self.target = target

    @cached_property
    def error(self) -> Tensor:
        """Prediction minus truth."""
        return self.preds - self.target

    @cached_property
    def absolute(self) -> Tensor:
        """Absolute error."""
        return self.error.abs()

    @cached_property
    def positive(self) -> Tensor:
        """Predictions raised to MIN_PREDICTION, for logarithms and ratios."""
        return self.preds.clamp(min=MIN_PREDICTION)

    @cached_property
    def log_error(self) -> Tensor:
        """Natural logarithm of prediction over truth."""
        return (self.positive / self.target).log_()

    @cached_property
    def _pair(self) -> tuple[Tensor, Tensor]:
        return torch.maximum(self.positive, self.target), torch.minimum(self.positive, self.target)

    def within(self, power: int) -> Tensor:
        """Return 1 where max(p / t, t / p) < 1.25 ** power, else 0."""
        larger, smaller = self._pair
        # a product decides ties exactly for float32 inputs, a quotient would round
        return (larger < smaller * 1.25**power).double()


TermFunction = Callable[[PixelErrors], Tensor]

_FUNCTIONS: dict[str, TermFunction] = {
    "count": lambda x: torch.ones_like(x.target),
    "error": lambda x: x.error,
    "absolute": lambda x: x.absolute,
    "squared": lambda x: x.error.square(),
    "relative": lambda x: x.absolute / x.target,
    "log10": lambda x: x.log_error.abs().mul_(1 / math.log(10)),
    "log_error": lambda x: x.log_error,
    "log_squared": lambda x: x.log_error.square(),
    "delta1": lambda x: x.within(1),
    "delta2": lambda x: x.within(2),
    "delta3": lambda x: x.within(3),
    "log_absolute": lambda x: x.absolute.clamp(min=MIN_ERROR).log_(),
}

TERMS: tuple[str, ...] = tuple(name for name in _FUNCTIONS if name != "log_absolute")
"""The terms of depth, in the order of the last dimension of the sums."""

LABEL_TERMS: tuple[str, ...] = ("count", "error", "absolute", "squared", "log_absolute")
"""The terms of labels that may be zero or negative (ages, coordinates)."""


def pixel_term(name: str, errors: PixelErrors) -> Tensor:
    """Return one term for every pixel, (pixels,) float64.

    | term | value |
    |---|---|
    | count | 1 |
    | error, absolute, squared | p - t, abs(p - t), (p - t) ** 2 |
    | relative | abs(p - t) / t |
    | log10 | abs(log10 q - log10 t) |
    | log_error, log_squared | d = ln q - ln t, d ** 2 |
    | delta1, delta2, delta3 | 1 where max(q / t, t / q) < 1.25, 1.25 ** 2, 1.25 ** 3 |
    | log_absolute | ln max(abs(p - t), 1e-3) |

    with q = max(p, 1e-3 m). The floor under abs(p - t), a thousandth of a label unit, keeps one
    exact prediction from making the geometric mean of a thousand errors 0.

    Raises:
        DataError: an unknown term.

    Example:
        >>> p, t = torch.tensor([2.5, -1.0]).double(), torch.tensor([2.0, 1.0]).double()
        >>> pixel_term("squared", PixelErrors(p, t)).tolist()
        [0.25, 4.0]
        >>> pixel_term("delta1", PixelErrors(p, t)).tolist()  # exactly 1.25 is not within 1.25
        [0.0, 0.0]
    """
    if name not in _FUNCTIONS:
        raise DataError(f"expected terms among {list(_FUNCTIONS)}, got {name!r}")
    return _FUNCTIONS[name](errors)


Means = Mapping[str, Tensor]

_FORMULAS: dict[str, tuple[tuple[str, ...], Callable[[Means], Tensor]]] = {
    "rmse": (("squared",), lambda m: m["squared"].sqrt()),
    "mse": (("squared",), lambda m: m["squared"]),
    "mae": (("absolute",), lambda m: m["absolute"]),
    "gm": (("log_absolute",), lambda m: m["log_absolute"].exp()),
    "abs_rel": (("relative",), lambda m: m["relative"]),
    "log10": (("log10",), lambda m: m["log10"]),
    "silog": (
        ("log_squared", "log_error"),
        # rounding may leave a variance of zero slightly negative
        lambda m: 100 * (m["log_squared"] - m["log_error"].square()).clamp(min=0).sqrt(),
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
        >>> metrics_of(["count", "squared"])
        ('rmse', 'mse')
        >>> metrics_of(["count", "mpjpe"])
        ('mpjpe',)
    """
    found = [name for name, (needs, _) in _FORMULAS.items() if set(needs) <= set(terms)]
    return (*found, *(term for term in dict.fromkeys(terms) if term not in _USED))


DEPTH_METRICS: tuple[str, ...] = metrics_of(TERMS)
"""All metrics of depth in metres."""

LABEL_METRICS: tuple[str, ...] = metrics_of(LABEL_TERMS)
"""The metrics of labels that may be zero or negative."""


def scores(sums: Tensor, terms: Sequence[str]) -> Tensor:
    """Turn sums of terms into metrics.

    | metric | value, with <x> the mean of a term |
    |---|---|
    | rmse, mse, mae, bias | sqrt <squared>, <squared>, <absolute>, <error> (prediction - truth) |
    | gm | exp <log_absolute>, the geometric mean of the absolute errors |
    | abs_rel, log10, delta1..3 | <relative>, <log10>, <delta1..3> |
    | silog | 100 sqrt(<d^2> - <d>^2), d = ln prediction - ln truth, as KITTI defines it |
    | any other term | its mean |

    Args:
        sums: (..., terms) float64 sums, "count" among them.
        terms: the names of the last dimension.

    Returns:
        (..., metrics) in the order of `metrics_of(terms)`; NaN where the count is 0.

    Example:
        >>> scores(torch.tensor([[4.0, 36.0]]).double(), ["count", "squared"])
        tensor([[3., 9.]], dtype=torch.float64)
    """
    count = sums[..., list(terms).index("count")]
    means = {name: sums[..., k] / count for k, name in enumerate(terms)}
    metrics = [
        _FORMULAS[name][1](means) if name in _FORMULAS else means[name]
        for name in metrics_of(terms)
    ]
    return torch.stack(metrics, dim=-1)
