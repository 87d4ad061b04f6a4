"""Cubic tables of a smooth function of one variable, checked against the function itself.

The evidence of scalar labels is a smooth function of the prediction alone, so half a million
predictions need about a thousand exact values and an interpolation. Hermite cubics with node
distance h err by h^4 / 384 times the fourth derivative, which for a sum of normals of standard
deviation tau is of order tau^-4 (times powers of the distance to the labels).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NODES_PER_SMOOTHNESS = 16
MAX_NODES = 2**15
# Predictions interpolated at once: the temporaries then stay in a CPU's cache.
INTERPOLATION_CHUNK = 2**16


class Curves(NamedTuple):
    """Log evidence, its two derivatives, and those derivatives' slopes over p, at table nodes."""

    value: Tensor
    by_preds: Tensor
    by_sigma: Tensor
    preds_slope: Tensor
    sigma_slope: Tensor


class Table(NamedTuple):
    """Cubic coefficients, (3 curves, 4 powers, cells), over cells of ``width`` from ``start``."""

    start: float
    width: float
    coefficients: Tensor


def build(
    exact: Callable[[Tensor], Curves],
    preds: Tensor,
    smoothness: Tensor,
    sigma: Tensor,
    tolerance: float,
) -> Table | None:
    """Return a table over the range of ``preds``, or None where it would be large or inexact.

    Args:
        exact: The function with its derivatives, for float64 nodes of any number.
        preds: Flat predictions.
        smoothness: Smallest standard deviation among the mixture's components, noise included.
        sigma: Noise scale; the errors of the derivatives are compared after scaling by it.
        tolerance: Largest error allowed at the cells' middles.
    """
    bounds = torch.stack([preds.min().double(), preds.max().double(), smoothness, sigma.double()])
    low, high, tau, noise = bounds.tolist()
    cells = (high - low) / tau * NODES_PER_SMOOTHNESS
    if not cells < min(MAX_NODES, preds.numel() / 4):
        return None
    count = max(4, int(cells) + 1)
    width = max((high - low) / count, tau * 1e-3)
    nodes = low + width * torch.arange(count + 1, device=preds.device, dtype=torch.float64)
    curves = exact(nodes)
    table = Table(low, width, _hermite(curves, width))
    middles = exact(nodes[:-1] + width / 2)
    error = _evaluate_cells(table.coefficients, torch.arange(count, device=preds.device), 0.5)
    error = (error - torch.stack([middles.value, middles.by_preds, middles.by_sigma])).abs()
    error[1:] *= noise
    if not error.max().item() <= tolerance:
        return None
    return table._replace(coefficients=table.coefficients.to(preds.dtype))


def interpolate(table: Table, preds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log evidence and its derivatives by prediction and by sigma for flat predictions."""
    curves = torch.empty(3, preds.numel(), dtype=preds.dtype, device=preds.device)
    last = table.coefficients.shape[2] - 1
    for start in range(0, preds.numel(), INTERPOLATION_CHUNK):
        chunk = slice(start, start + INTERPOLATION_CHUNK)
        position = (preds[chunk] - table.start) * (1 / table.width)
        cell = position.long().clamp_(0, last)
        curves[:, chunk] = _evaluate_cells(table.coefficients, cell, position - cell)
    return curves[0], curves[1], curves[2]


def _evaluate_cells(coefficients: Tensor, cell: Tensor, offset: Tensor | float) -> Tensor:
    """Evaluate the cubics of ``cell`` at ``offset`` in [0, 1]; shape (3, cells)."""
    constant, linear, square, cube = (
        power.index_select(1, cell) for power in coefficients.unbind(1)
    )
    return ((cube * offset + square) * offset + linear) * offset + constant


def _hermite(curves: Curves, width: float) -> Tensor:
    """Cubic Hermite coefficients of the three curves per cell, in units of the cell."""
    values = torch.stack([curves.value, curves.by_preds, curves.by_sigma])
    slopes = torch.stack([curves.by_preds, curves.preds_slope, curves.sigma_slope]) * width
    left, right = values[:, :-1], values[:, 1:]
    slope_left, slope_right = slopes[:, :-1], slopes[:, 1:]
    rise = right - left
    square = 3 * rise - 2 * slope_left - slope_right
    cube = slope_left + slope_right - 2 * rise
    return torch.stack([left, slope_left, square, cube], dim=1)
