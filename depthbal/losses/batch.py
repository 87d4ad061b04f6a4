"""The batch's own targets, on all ranks, as groups: the prior of BMC.

A group of targets within a width h stands for them by a normal of their mean and variance. At
distance d the log-density of Gaussian noise then errs by k d^3 / (6 sigma^6) to leading order, with
the third central moment k at most h^3 / (6 sqrt 3) whatever the targets are. A prediction with a
target within 6 sigma sees no cell beyond 8 sigma, even if that target is one of a million; farther
away log E itself grows with d^2, and relative to it the error is below h^2 / (4 sigma^2).
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from depthbal.losses.families import GaussianFamily
from depthbal.losses.family import NoiseFamily
from depthbal.losses.reduction import chunks

Method = Literal["auto", "exact", "grouped", "binned"]

# Up to so many targets all distinct ones are kept apart without looking for bins.
FEW_TARGETS = 512
# Grids up to this size, or four times the targets, are counted cell by cell; on larger ones only
# occupied cells exist. Beyond the second float64 could not tell targets apart.
FEW_CELLS, MAX_CELLS = 2**14, 2.0**40
# Pairs of a prediction and a distinct target above which float64 would take minutes to hours, and
# what ``method="auto"`` allows itself then.
MAX_PAIRS, FLOAT64_TOLERANCE = 2e10, 1e-9
# Numbers per temporary: on a CPU they stay in the cache, on a GPU they hide the launches.
CHUNK_NUMBERS, CHUNK_NUMBERS_DEVICE = 2**16, 2**24


class TargetGroups(NamedTuple):
    """Targets merged into K groups, in float64: means (K,) or (K, D), and variances within."""

    counts: Tensor
    means: Tensor
    variances: Tensor


class TargetExtent(NamedTuple):
    """How far the targets reach, on which all ranks agree, so that all of them group alike."""

    labels: int  # the most on one rank, masked ones included
    counted: int  # on all ranks
    low: float  # of their range, along the coordinate with the widest for vectors
    high: float
    sigma: float  # the smallest noise scale of a label that counts


def batch_prior(
    target: Tensor,
    mask: Tensor | None,
    sigma: Tensor,
    *,
    method: Method = "auto",
    tolerance: float = 1e-5,
    event_dim: int = 0,
    family: NoiseFamily = GaussianFamily(),  # noqa: B008  # it has no state
    over_ranks: bool = False,
) -> tuple[TargetGroups, TargetExtent]:
    """Return the finite targets that count as groups, none where none counts, and their extent."""
    target = target.detach()
    extent = _extent(target, mask, sigma, event_dim, over_ranks)

    def binned(within: float) -> TargetGroups:
        narrow = family.cell_width(extent.sigma, within)
        width = max(narrow, (extent.high - extent.low) / MAX_CELLS)
        grid = Grid(extent.low, width, int((extent.high - extent.low) / width) + 1)
        return grid.groups(*grid.occupied(target, mask, over_ranks))

    auto = method == "auto" and not event_dim
    many = target.dtype != torch.float64 and extent.counted > FEW_TARGETS
    if extent.counted and (method == "binned" or (auto and many)):
        return binned(tolerance), extent
    event = target.shape[target.ndim - event_dim :]
    values = (target.reshape(-1, *event) if mask is None else target[mask]).double()
    counts = values.new_ones(len(values), 1)
    if method != "exact":
        values, counts = _pooled(values, counts, over_ranks)
    elif over_ranks:
        rows = _gather_rows(torch.cat([counts, values.reshape(len(values), -1)], 1))
        counts, values = rows[:, :1], rows[:, 1:].reshape(-1, *event)
    if auto and float(extent.labels) * len(counts) > MAX_PAIRS:
        return binned(FLOAT64_TOLERANCE), extent
    alike = values[:, :1] if event_dim else values  # of a vector one variance for all axes
    return TargetGroups(counts[:, 0], values, torch.zeros_like(alike)), extent


def _extent(
    target: Tensor, mask: Tensor | None, sigma: Tensor, event_dim: int, over_ranks: bool
) -> TargetExtent:
    """Measure the targets that count; a device is read once."""
    axes = target.shape[-1] if event_dim else 1
    flat = target.reshape(-1, axes)
    counted = None if mask is None else mask.flatten()
    labels = torch.full((), len(flat), device=flat.device)
    count = labels if counted is None else counted.sum()
    low, high = _smallest(flat, counted), -_smallest(-flat, counted)
    smallest_sigma = _smallest(sigma.reshape(-1, 1), counted if sigma.ndim else None)
    row = torch.cat([torch.stack([labels, count]).double(), smallest_sigma, low, high])
    rows = _gather_rows(row[None]) if over_ranks else row[None]
    low, high = rows[:, 3 : 3 + axes].amin(0), rows[:, 3 + axes :].amax(0)
    widest = (high - low).argmax()
    most, total, scale = rows[:, 0].max(), rows[:, 1].sum(), rows[:, 2].min()
    found = torch.stack([most, total, low[widest], high[widest], scale]).tolist()
    return TargetExtent(int(found[0]), int(found[1]), *found[2:])


def _smallest(columns: Tensor, counted: Tensor | None) -> Tensor:
    """Return the smallest counted entry of every column in float64, infinity without any."""
    if counted is not None:
        columns = torch.where(counted[:, None], columns, math.inf)
    if not len(columns):
        return torch.full((columns.shape[1],), math.inf, device=columns.device).double()
    return columns.amin(0).double()


def _pooled(keys: Tensor, sums: Tensor, over_ranks: bool) -> tuple[Tensor, Tensor]:
    """Return the distinct keys (N,) or (N, D) in ascending order and the sums of equal ones."""
    distinct, owner = torch.unique(keys, dim=None if keys.ndim == 1 else 0, return_inverse=True)
    sums = sums.new_zeros(len(distinct), sums.shape[1]).index_add_(0, owner, sums)
    if not over_ranks:
        return distinct, sums
    columns, table = sums.shape[1], distinct if keys.ndim == 2 else distinct[:, None]
    rows = _gather_rows(torch.cat([sums, table.double()], 1))
    keys = rows[:, columns:] if keys.ndim == 2 else rows[:, columns].to(keys.dtype)
    return _pooled(keys, rows[:, :columns], over_ranks=False)


def _gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks below each other; ranks may hold different numbers, or none."""

    def everyone(part: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, part.contiguous())
        return parts

    sizes = torch.stack(everyone(torch.tensor(len(rows), device=rows.device))).tolist()
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    return torch.cat([part[:size] for part, size in zip(everyone(padded), sizes, strict=True)])


class Grid(NamedTuple):
    """Equal cells of ``width`` from ``low`` on."""

    low: float
    width: float
    cells: int

    def occupied(
        self, target: Tensor, mask: Tensor | None, over_ranks: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the cells with targets that count, ascending, and their moments."""
        if self.cells <= max(FEW_CELLS, 4 * target.numel()):
            moments = self.moments(target.flatten(), None if mask is None else mask.flatten())
            cell = moments[0].nonzero().flatten()
            moments = moments[:, cell]
            if not over_ranks:
                return cell, moments
        else:
            cell, offset = self._locate(target.flatten() if mask is None else target[mask])
            moments = torch.stack([torch.ones_like(offset), offset, offset**2])
        cell, sums = _pooled(cell, moments.T, over_ranks)
        return cell, sums.T

    def moments(
        self, values: Tensor, counts: Tensor | None = None, variances: Tensor | None = None
    ) -> Tensor:
        """Return sum of count * offset^k per cell, k = 0 to 2, (3, cells), in float64.

        Offsets are from the cell's centre in cell widths; the outermost cells count all beyond.
        """
        sums = torch.zeros(3, self.cells, dtype=torch.float64, device=values.device)
        step = CHUNK_NUMBERS if values.device.type == "cpu" else CHUNK_NUMBERS_DEVICE
        for part, number, spread in chunks(step, values, counts, variances):
            cell, offset = self._locate(part)
            number = torch.ones_like(offset) if number is None else number.double()
            if spread is not None:
                sums[2].index_add_(0, cell, spread.double() / self.width**2 * number)
            sums[0].index_add_(0, cell, number)
            number = number * offset
            sums[1].index_add_(0, cell, number)
            sums[2].index_add_(0, cell, number.mul_(offset))
        return sums

    def groups(self, cell: Tensor, moments: Tensor) -> TargetGroups:
        """Return cells as groups; empty ones have a count of 0."""
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
