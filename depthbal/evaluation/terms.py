"""What is summed over pixels, and the metrics: functions of the means of these terms."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError

MIN_PREDICTION = 1e-3
"""Metres; smaller predictions are raised to it, in the logarithms and ratios only."""

EDGE_THRESHOLDS = tuple(1.05 + 0.2 * step / 9 for step in range(10))
"""A neighbour that is farther by more than such a factor is behind an edge."""

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
    "squared_relative": lambda x: x.error.square() / x.target,
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

_HITS, _ENDS = (tuple(f"edge_{k}_{i}" for i in range(1, 11)) for k in ("hits", "ends"))
EDGE_TERMS: tuple[str, ...] = (*_HITS, *_ENDS, "edge_pixels", "flying_pixels")
"""Terms of whole maps: neighbours that just reach a threshold in both maps, and in either; pixels
at strong edges, and those of them that are predicted between the surfaces. See `Edges`."""

EDGE_WORDS = (
    "of pixels whose 3 x 3 neighbourhood is valid. boundary_f1: a neighbour to the right, left, "
    "below or above that is t times as far, mean of the F1 over ten t from 1.05 to 1.25, weighted "
    "by t. "
    "flying: of the pixels on one of two surfaces 1.25 times apart, the share that is predicted in "
    "the middle half between them, by ratio"
)


def term_values(names: Sequence[str], preds: Tensor, target: Tensor) -> Iterator[Tensor]:
    """Yield the terms of every pixel, (pixels,) float64, of float64 predictions and truths."""
    errors = _Errors(preds, target)
    for name in names:
        if name not in _FUNCTIONS:
            raise DataError(f"expected terms among {list(_FUNCTIONS)}, got {name!r}")
        yield _FUNCTIONS[name](errors)


Array = npt.NDArray[np.float64]


def _boundary_f1(m: Sequence[Tensor]) -> Tensor:
    """Return the mean over thresholds, those as weights, of each one's F1; NaN without any edge."""
    # of every threshold, from those of every level
    parts = (torch.stack([*m[start : start + 10]], -1) for start in (0, 10))
    hits, ends = (part.flip(-1).cumsum(-1).flip(-1) for part in parts)
    weights = ends.new_tensor(EDGE_THRESHOLDS).where(ends > 0, 0.0)
    scores = 2 * hits / ends.where(ends > 0, 1.0)
    return (weights * scores).sum(-1) / weights.sum(-1)


_Formula = tuple[tuple[str, ...], Callable[[Sequence[Tensor]], Tensor]]
_FORMULAS: dict[str, _Formula] = {  # needed terms, and the metric from their means
    "rmse": (("squared",), lambda m: m[0].sqrt()),
    "mse": (("squared",), lambda m: m[0]),
    "mae": (("absolute",), lambda m: m[0]),
    "gm": (("log_absolute",), lambda m: m[0].exp()),
    "abs_rel": (("relative",), lambda m: m[0]),
    "sq_rel": (("squared_relative",), lambda m: m[0]),
    "rmse_log": (("log_squared",), lambda m: m[0].sqrt()),
    "log10": (("log10",), lambda m: m[0]),
    # rounding may leave a variance of zero slightly negative
    "silog": (
        ("log_squared", "log_error"),
        lambda m: 100 * (m[0] - m[1] ** 2).clamp(min=0).sqrt(),
    ),
    "delta1": (("delta1",), lambda m: m[0]),
    "delta2": (("delta2",), lambda m: m[0]),
    "delta3": (("delta3",), lambda m: m[0]),
    "bias": (("error",), lambda m: m[0]),
    "boundary_f1": ((*_HITS, *_ENDS), _boundary_f1),
    "flying": (("flying_pixels", "edge_pixels"), lambda m: m[0] / m[1]),
}

_USED = {"count"}.union(*(needs for needs, _ in _FORMULAS.values()))


def _formula(metric: str) -> _Formula:
    if metric.startswith("mean "):  # over images that have it
        return (metric, f"has {metric[5:]}"), lambda m: m[0] / m[1]
    return _FORMULAS.get(metric) or ((metric,), lambda m: m[0])


def metrics_of(terms: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that these terms determine; a term of no formula is one: its mean.

    Example:
        >>> metrics_of(["count", "squared"]), metrics_of(["count", "mpjpe"])
        (('rmse', 'mse'), ('mpjpe',))
    """
    found = [name for name, (needs, _) in _FORMULAS.items() if set(needs) <= set(terms)]
    own = (term for term in dict.fromkeys(terms) if not term.startswith("has "))
    return (*found, *(term for term in own if term not in _USED))


def metric_slopes(sums: Array, terms: Sequence[str], place: int) -> tuple[list[int], Array]:
    """Return the sums that a metric depends on, and its derivatives by them, 0 of no count."""
    needs, value = _formula(metrics_of(terms)[place])
    columns = [list(terms).index(name) for name in ("count", *needs)]
    used = torch.tensor(sums[..., columns], requires_grad=True)
    count, *others = used.unbind(-1)
    (slopes,) = torch.autograd.grad(value([one / count for one in others]).sum(), used)
    return columns, slopes.nan_to_num(0.0, 0.0, 0.0).numpy()


def metric_values(sums: Array, terms: Sequence[str]) -> Array:
    """Turn sums (..., terms) into metrics (..., metrics), in the order of `metrics_of`."""
    values = torch.as_tensor(sums)
    count = values[..., list(terms).index("count")]
    means = {name: values[..., k] / count for k, name in enumerate(terms)}
    formulas = [_formula(metric) for metric in metrics_of(terms)]
    found = [value([means[name] for name in needs]) for needs, value in formulas]
    return torch.stack(found, -1).numpy()
