"""Cells of targets merged into groups as wide as the targets inside them allow.

Cells are narrow enough for the worst of targets. Most targets lie evenly, with hardly any third
moment, and can be represented by wider groups, up to the width at which the fourth moment shows.
Next to long gaps and to the outermost targets cells stay as they are, because predictions far
outside see nothing but these targets.
"""

import math

import torch
from torch import Tensor

from depthbal.losses.batch.binning import SEEN_SIGMAS, Grid
from depthbal.losses.batch.groups import TargetGroups, join_groups

# A prediction in the middle of a shorter gap sees little farther than the nearest targets.
LONG_GAP_SIGMAS = 16.0
# Targets at least so far behind such an edge are not seen from outside.
EDGE_SIGMAS = 0.2


def cell_groups(grid: Grid, moments: Tensor, cell: Tensor | None = None) -> TargetGroups:
    """Return every cell as a group of its own; empty ones have a count of 0.

    Args:
        grid: The grid.
        moments: Moments about the cells' centres, (3 or more, n).
        cell: Which cells these are, (n,); all of them when omitted.
    """
    if cell is None:
        cell = torch.arange(moments.shape[1], device=moments.device)
    mean, square = moments[1:3] / moments[0].clamp(min=torch.finfo(moments.dtype).tiny)
    return TargetGroups(
        moments[0],
        grid.low + grid.width * (cell.double() + 0.5 + mean),
        grid.width**2 * (square - mean**2).clamp(min=0),
    )


def occupied_cells(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells that hold targets, ascending, and their moments."""
    cell = moments[0].nonzero().flatten()
    return cell, moments[:, cell]


def merged_groups(
    grid: Grid, cell: Tensor, moments: Tensor, noise_sigma: float, tolerance: float
) -> TargetGroups:
    """Merge neighbouring cells while log E stays within ``tolerance``.

    Args:
        grid: Cells of ``cell_width``.
        cell: Occupied cells, ascending, (n,).
        moments: Their moments up to the fourth, (5, n).
        noise_sigma: Noise scale, label units.
        tolerance: Largest error of log E.
    """
    fixed = _next_to_edges(cell, noise_sigma / grid.width)
    groups = cell_groups(grid, moments[:, fixed], cell[fixed])
    cell, moments = cell[~fixed], moments[:, ~fixed]
    while len(cell) > 1:
        wider = Grid(grid.low, 2 * grid.width, grid.cells // 2 + 1)
        reach = SEEN_SIGMAS * wider.width / noise_sigma
        if reach**5 / 3000 > tolerance:  # the fifth cumulant, which is not measured, could show
            break
        parent, owner = torch.unique_consecutive(cell // 2, return_inverse=True)
        shifted = _to_parent(moments, 0.25 - 0.5 * (cell % 2 == 0))
        joined = moments.new_zeros(5, len(parent)).index_add_(1, owner, shifted)
        fits = _error(joined, reach) <= tolerance
        kept = ~fits[owner]
        groups = join_groups(groups, cell_groups(grid, moments[:, kept], cell[kept]))
        grid, cell, moments = wider, parent[fits], joined[:, fits]
    return join_groups(groups, cell_groups(grid, moments, cell))


def _next_to_edges(cell: Tensor, cells_per_sigma: float) -> Tensor:
    """Return which cells are close to the end of a stretch without long gaps."""
    gap = torch.diff(cell) > LONG_GAP_SIGMAS * cells_per_sigma
    edge = torch.ones(1, dtype=torch.bool, device=cell.device)
    first = torch.where(torch.cat([edge, gap]), cell, -1).cummax(0).values
    last_from_behind = torch.where(torch.cat([gap, edge]), cell, torch.iinfo(cell.dtype).max)
    last = last_from_behind.flip(0).cummin(0).values.flip(0)
    return torch.minimum(cell - first, last - cell) < EDGE_SIGMAS * cells_per_sigma


def _to_parent(moments: Tensor, shift: Tensor) -> Tensor:
    """Return moments about the centre of the cell of twice the width, in its widths.

    An offset u becomes u / 2 + shift, and its powers expand by the binomial theorem.
    """
    orders = []
    for order in range(5):
        terms = [
            moments[k] * shift ** (order - k) * (math.comb(order, k) * 0.5**k)
            for k in range(order + 1)
        ]
        orders.append(torch.stack(terms).sum(0))
    return torch.stack(orders)


def _error(moments: Tensor, reach: float) -> Tensor:
    """Return the error of log E at ``reach`` cell widths per sigma and sigma of distance.

    Third and fourth cumulant, the first that a normal lacks, of the targets in each cell.
    """
    mean, square, cube, fourth = moments[1:] / moments[0]
    variance = square - mean**2
    skew = cube - 3 * mean * square + 2 * mean**3
    centred = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
    excess = centred - 3 * variance**2
    error: Tensor = skew.abs() * reach**3 / 6 + excess.abs() * reach**4 / 24
    return error
