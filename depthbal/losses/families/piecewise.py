"""Cubic tables of functions that are smooth only between known points, refined until they fit.

The evidence of Laplace noise has a kink at every point mass, that of Huber noise a jump of its
second derivative at distance delta from each. Cells that end there contain smooth pieces only, so
that a few samples inside a cell tell how well a cubic fits in all of it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Cubics are fitted in the Chebyshev nodes of a cell and checked where they err most, in units of
# half a cell from its middle.
NODES = tuple(math.cos(math.pi * (2 * i + 1) / 8) for i in range(4))
CHECKS = (-0.75, 0.0, 0.75)
MAX_HALVINGS = 30
# Predictions interpolated at once: the temporaries then stay in a CPU's cache.
INTERPOLATION_CHUNK = 2**14


class PiecewiseTable(NamedTuple):
    """Edges of the cells, (cells + 1,), and their cubics, (cells, 4 powers, curves); float64.

    The argument of a cubic runs from -1 to 1 over its cell.
    """

    edges: Tensor
    coefficients: Tensor


def build(
    exact: Callable[[Tensor], Tensor], edges: Tensor, max_cells: int, tolerance: Tensor
) -> PiecewiseTable | None:
    """Return a table over the cells between ``edges``, halved until they keep to the tolerance.

    Args:
        exact: From float64 nodes (n,), none of them an edge, to the curves there, (curves, n).
        edges: Increasing; the curves are smooth between neighbours.
        max_cells: Size beyond which a table does not pay.
        tolerance: Largest error allowed at the points of a cell that are checked, (curves, 1).

    Returns:
        The table, or None where it would have too many cells or cells that never fit.

    Example:
        >>> edges, tolerance = torch.tensor([-1.0, 0.0, 2.0]).double(), torch.tensor([[1e-6]])
        >>> table = build(lambda x: x.abs().exp()[None], edges, 1000, tolerance.double())
        >>> interpolate(table, torch.tensor([-1.0, 0.0, 1.0]))
        tensor([[2.7183, 1.0000, 2.7183]])
    """
    points = edges.new_tensor(NODES + CHECKS)
    powers = points[:, None] ** torch.arange(4, device=edges.device)
    to_cubic = torch.linalg.inv(powers[:4])
    starts, stops = edges[:-1], edges[1:]
    wide = stops > starts
    starts, stops = starts[wide], stops[wide]
    finished: list[tuple[Tensor, Tensor]] = []
    count = 0
    for _ in range(MAX_HALVINGS):
        if count + len(starts) > max_cells:
            return None
        middle, half = (starts + stops) / 2, (stops - starts) / 2
        nodes = middle[:, None] + half[:, None] * points
        values = exact(nodes.flatten())
        values = values.view(len(values), *nodes.shape)
        cubics = values[..., :4] @ to_cubic.T
        errors = (cubics @ powers[4:].T - values[..., 4:]).abs()
        # Written so that NaN does not fit.
        fits = (errors <= tolerance[..., None]).all(-1).all(0)
        finished.append((starts[fits], cubics[:, fits].permute(1, 2, 0)))
        count += len(finished[-1][0])
        starts = torch.cat([starts[~fits], middle[~fits]])
        stops = torch.cat([middle[~fits], stops[~fits]])
        if not len(starts):
            break
    if len(starts) or not count:
        return None
    left, order = torch.cat([part[0] for part in finished]).sort()
    coefficients = torch.cat([part[1] for part in finished])[order]
    return PiecewiseTable(torch.cat([left, edges[-1:]]), coefficients.contiguous())


def interpolate(table: PiecewiseTable, arguments: Tensor) -> Tensor:
    """Return the curves at flat arguments within the table's range, (curves, n)."""
    edges, coefficients = table
    middle, scale = (edges[1:] + edges[:-1]) / 2, 2 / edges.diff()
    curves = arguments.new_empty(coefficients.shape[2], arguments.numel())
    for start in range(0, arguments.numel(), INTERPOLATION_CHUNK):
        points = arguments[start : start + INTERPOLATION_CHUNK].double()
        cell = torch.searchsorted(edges[1:-1], points, right=True)
        offset = ((points - middle[cell]) * scale[cell])[:, None]
        constant, linear, square, cube = coefficients[cell].unbind(1)
        values = ((cube * offset + square) * offset + linear) * offset + constant
        curves[:, start : start + INTERPOLATION_CHUNK] = values.T
    return curves
