"""Cubic tables of smooth functions of one variable, checked against the functions themselves.

The evidence of scalar labels is a smooth function of the prediction alone, so half a million
predictions need about a thousand exact values and an interpolation. Cubics through four nodes at
distance h err by 9 / 384 h^4 times the fourth derivative, which for a sum of normals of standard
deviation tau is of order tau^-4 (times powers of the distance to the labels).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NODES_PER_SMOOTHNESS = 24
MAX_NODES = 2**15
# Predictions interpolated at once: the temporaries then stay in a CPU's cache.
INTERPOLATION_CHUNK = 2**16


class Table(NamedTuple):
    """Cubic coefficients, (4 powers, curves, cells), over cells of ``width`` from ``start``."""

    start: float
    width: float
    coefficients: Tensor


def build(
    exact: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    smoothness: float,
    max_cells: int,
    tolerance: Tensor,
) -> Table | None:
    """Return a table over [low, high], or None where it would be large or inexact.

    Args:
        exact: From float64 nodes (n,) to the curves there, (curves, n).
        low: Smallest argument.
        high: Largest argument.
        smoothness: Length over which the curves vary.
        max_cells: Size beyond which a table does not pay.
        tolerance: Largest error allowed in the middle of a cell, per curve, shape (curves, 1).

    Example:
        >>> table = build(
        ...     lambda x: x.sin()[None], 0.0, 3.0, 1.0, 1000, torch.full((1, 1), 1e-5).double()
        ... )
        >>> interpolate(table, torch.tensor([1.0, 2.0]))
        tensor([[0.8415, 0.9093]])
    """
    cells = (high - low) / smoothness * NODES_PER_SMOOTHNESS
    if not cells < min(MAX_NODES, max_cells):
        return None
    count = max(4, int(cells) + 1)
    width = max((high - low) / count, smoothness * 1e-3)
    steps = torch.arange(-1, count + 2, dtype=torch.float64, device=tolerance.device)
    coefficients = _cubics(exact(low + width * steps))
    table = Table(low, width, coefficients)
    middle = exact(low + width * (steps[1:-2] + 0.5))
    error = (_horner(coefficients, 0.5) - middle).abs()
    # Written so that NaN refuses the table.
    return table if bool((error <= tolerance).all()) else None


def interpolate(table: Table, arguments: Tensor) -> Tensor:
    """Return the curves at flat arguments within the table's range, (curves, n)."""
    coefficients = table.coefficients.to(arguments.dtype)
    curves = arguments.new_empty(coefficients.shape[1], arguments.numel())
    for start in range(0, arguments.numel(), INTERPOLATION_CHUNK):
        chunk = slice(start, start + INTERPOLATION_CHUNK)
        position = (arguments[chunk] - table.start) * (1 / table.width)
        cell = position.long().clamp_(0, coefficients.shape[2] - 1)
        curves[:, chunk] = _horner(
            [power.index_select(1, cell) for power in coefficients], position - cell
        )
    return curves


def _horner(powers: Tensor | list[Tensor], offset: Tensor | float) -> Tensor:
    """Evaluate cubics given from the constant to the third power."""
    constant, linear, square, cube = powers
    return ((cube * offset + square) * offset + linear) * offset + constant


def _cubics(values: Tensor) -> Tensor:
    """Return the cubics through each four neighbouring nodes, on the cell between the middle two.

    The cell runs over [0, 1], its nodes lie at -1, 0, 1 and 2.
    """
    before, left, right, after = (
        values[:, start : values.shape[1] - 3 + start] for start in range(4)
    )
    linear = right - before / 3 - left / 2 - after / 6
    square = (before + right) / 2 - left
    cube = (after - before) / 6 + (left - right) / 2
    return torch.stack([left, linear, square, cube])
