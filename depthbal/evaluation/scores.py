"""Metrics as functions of the means of their terms."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from depthbal.evaluation.bins import SHOTS
from depthbal.evaluation.terms import LABEL_TERMS, TERMS

GROUPS: tuple[str, ...] = ("overall", *SHOTS)
"""All scored bins, and the bins of each shot."""

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
