"""Scalar targets counted into narrow cells and merged into groups, with moments that add up.

A group of targets within a width h stands for them by a normal of their mean and variance. At
distance d the log-density of Gaussian noise then errs by k d^3 / (6 sigma^6) to leading order, with
the third central moment k at most h^3 / (6 sqrt 3) whatever the targets are. What counts is the
farthest cell that a prediction still sees: with a target within 6 sigma these lie within 8 sigma,
even if that target is one of a million. For predictions farther away log E itself grows with d^2,
and relative to it the error is below h^2 / (4 sigma^2) at any distance.

Cells are that narrow for the worst of targets. Most targets lie evenly, with hardly any third
moment, and can be represented by wider groups, up to the width at which the fourth moment shows.
These show only from beyond 1,000 sigma, with 3e-4 of log E at most. Next to long gaps and to the
outermost targets cells stay as they are, because predictions far outside see nothing but these.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.losses.family import SEEN_SIGMAS
from depthbal.priors import GaussianMixture

# Numbers per temporary: on a CPU they stay in the cache, on a GPU they hide the launches.
CHUNK_NUMBERS = {"cpu": 2**16}
CHUNK_NUMBERS_DEVICE = 2**24
# A prediction in the middle of a shorter gap sees little farther than the nearest targets.
LONG_GAP_SIGMAS = 16.0
# Targets at least so far behind such an edge are not seen from outside.
EDGE_SIGMAS = 0.2


class TargetGroups(NamedTuple):
    """Targets merged into K groups, in float64.

    counts (K,), not normalised; means (K,) of scalars or (K, D) of vectors, label units; variances
    within the groups, of the means' shape.
    """

    counts: Tensor
    means: Tensor
    variances: Tensor

    def mixture(self) -> GaussianMixture:
        """Return the groups as p_train."""
        return GaussianMixture.unchecked(
            self.counts / self.counts.sum(), self.means, self.variances
        )

    def joined(self, other: "TargetGroups") -> "TargetGroups":
        """Return the groups of both, side by side."""
        return TargetGroups(*(torch.cat(parts) for parts in zip(self, other, strict=True)))


class Grid(NamedTuple):
    """Equal cells of ``width`` from ``low`` on."""

    low: float
    width: float
    cells: int

    def moments(
        self,
        values: Tensor,
        counts: Tensor | None = None,
        variances: Tensor | None = None,
        *,
        orders: int = 4,
    ) -> Tensor:
        """Return sum of count * offset^k per cell, k = 0 to ``orders``, (orders + 1, cells).

        Offsets are from the cell's centre in cell widths. The sums, in float64, add up over
        batches, ranks and steps. Values beyond the ends count in the outermost cells.
        ``counts`` are what every value counts, for example a mask; ``variances``, with
        ``orders=2``, are those of groups whose means the values are.
        """
        sums = torch.zeros(orders + 1, self.cells, dtype=torch.float64, device=values.device)
        step = CHUNK_NUMBERS.get(values.device.type, CHUNK_NUMBERS_DEVICE)
        for start in range(0, len(values), step):
            chunk = slice(start, start + step)
            cell, offset = self._locate(values[chunk])
            number = None if counts is None else counts[chunk].double()
            _add_powers(sums, cell, offset, number)
            if variances is not None:
                spread = variances[chunk].double() / self.width**2
                sums[2].index_add_(0, cell, spread if number is None else spread * number)
        return sums

    def sparse_moments(
        self, values: Tensor, counts: Tensor | None = None, *, orders: int = 4
    ) -> tuple[Tensor, Tensor]:
        """Return the occupied cells in ascending order and their moments, for grids of any size."""
        cell, offset = self._locate(values)
        occupied, owner = torch.unique(cell, return_inverse=True)
        sums = offset.new_zeros(orders + 1, len(occupied))
        _add_powers(sums, owner, offset, None if counts is None else counts.double())
        return occupied, sums

    def groups(self, moments: Tensor, cell: Tensor | None = None) -> TargetGroups:
        """Return cells, all of them by default, as groups; empty ones have a count of 0."""
        if cell is None:
            cell = torch.arange(moments.shape[1], device=moments.device)
        mean, square = moments[1:3] / moments[0].clamp(min=torch.finfo(moments.dtype).tiny)
        return TargetGroups(
            moments[0],
            self.low + self.width * (cell.double() + 0.5 + mean),
            self.width**2 * (square - mean**2).clamp(min=0),
        )

    def _locate(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells of values and the offsets from their centres in cell widths."""
        position = (values.double() - self.low) * (1 / self.width)
        cell = position.long().clamp_(0, self.cells - 1)
        return cell, position.sub_(cell).sub_(0.5)


def _add_powers(sums: Tensor, cell: Tensor, offset: Tensor, counts: Tensor | None) -> None:
    power = torch.ones_like(offset) if counts is None else counts
    for order, moment in enumerate(sums):
        moment.index_add_(0, cell, power)
        if order + 1 < len(sums):
            power = power * offset


def merged_groups(
    grid: Grid, cell: Tensor, moments: Tensor, noise_sigma: float, tolerance: float
) -> TargetGroups:
    """Merge neighbouring cells, occupied and ascending, while log E stays within ``tolerance``.

    For Gaussian noise; ``moments`` up to the fourth, (5, n).
    """
    fixed = _next_to_edges(cell, noise_sigma / grid.width)
    groups = grid.groups(moments[:, fixed], cell[fixed])
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
        groups = groups.joined(grid.groups(moments[:, kept], cell[kept]))
        grid, cell, moments = wider, parent[fits], joined[:, fits]
    return groups.joined(grid.groups(moments, cell))


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
