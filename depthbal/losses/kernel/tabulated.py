"""Cubic tables of smooth functions of one variable, checked against the functions themselves.

The evidence of scalar labels is a smooth function of the prediction alone, so half a million
predictions need about a thousand exact values and an interpolation. Cubics through four nodes at
distance h err by 9 / 384 h^4 times the fourth derivative, which for a sum of normals of standard
deviation tau is of order tau^-4 (times powers of the distance to the labels).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NODES_PER_SMOOTHNESS = 24
MAX_NODES = 2**15
# Cells farther from zero have numbers that float32 cannot hold.
MAX_POSITION = 2**23
# Arguments interpolated at once on a CPU, so that the temporaries stay in its cache.
CACHE_ARGUMENTS = 2**15
# Temporaries of a chunk's size that are alive at once, rounded up.
TEMPORARIES = 6


class Table(NamedTuple):
    """Cubic coefficients, (4 powers, curves, cells), over cells of ``width`` from the first on.

    Cell i covers ``width`` times [first + i, first + i + 1].
    """

    first: int
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
        [tensor([0.8415, 0.9093])]
    """
    if not (0 < smoothness < math.inf and math.isfinite(high - low)):
        return None
    width = 2.0 ** math.floor(math.log2(smoothness / NODES_PER_SMOOTHNESS))
    first, last = math.floor(low / width), math.floor(high / width)
    count = last - first + 1
    if count >= min(MAX_NODES, max_cells) or max(abs(first), abs(last)) > MAX_POSITION:
        return None
    steps = torch.arange(-1, count + 2, dtype=torch.float64, device=tolerance.device)
    coefficients = _cubics(exact(width * (first + steps)))
    table = Table(first, width, coefficients)
    middle = exact(width * (first + steps[1:-2] + 0.5))
    constant, linear, square, cube = coefficients
    error = (constant + linear / 2 + square / 4 + cube / 8 - middle).abs()
    # Written so that NaN refuses the table.
    return table if bool((error <= tolerance).all()) else None


def interpolate(table: Table, arguments: Tensor, budget_mb: float = 256) -> list[Tensor]:
    """Return every curve at flat arguments (n,) within the table's range, in their type.

    Args:
        table: What ``build`` returned.
        arguments: Flat, any number of them.
        budget_mb: Ceiling on the temporaries, MiB.
    """
    coefficients = table.coefficients.to(arguments.dtype)
    # Separate tensors, so that keeping one for the backward pass does not keep them all.
    curves = [torch.empty_like(arguments) for _ in range(coefficients.shape[1])]
    step = max(1, int(budget_mb * 2**20) // (TEMPORARIES * arguments.element_size()))
    if arguments.device.type == "cpu":
        step = min(step, CACHE_ARGUMENTS)
    for start in range(0, arguments.numel(), step):
        chunk = slice(start, start + step)
        # Exact: the width is a power of 2 and the first cell a whole number of widths.
        position = (arguments[chunk] * (1 / table.width)).sub_(table.first)
        cell = position.int().clamp_(0, coefficients.shape[2] - 1)
        offset = position.sub_(cell)
        for number, curve in enumerate(curves):
            # Powers from the highest: one gather and one product each, nothing else is alive.
            powers = coefficients[:, number].flip(0)
            result = powers[0].index_select(0, cell)
            for power in powers[1:]:
                result = torch.addcmul(power.index_select(0, cell), result, offset)
            curve[chunk] = result
    return curves


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
