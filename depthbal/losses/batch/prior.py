"""The batch's own targets as groups: the prior of BMC."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from depthbal.losses.batch.binning import Grid, cell_width
from depthbal.losses.batch.extent import TargetExtent, target_extent
from depthbal.losses.batch.gathering import add_over_ranks, gather_groups, gather_rows
from depthbal.losses.batch.groups import TargetGroups, equal_targets, single_targets
from depthbal.losses.batch.merging import cell_groups, merged_groups, occupied_cells

Method = Literal["auto", "exact", "grouped", "binned"]

# Up to so many targets all distinct ones are kept apart without looking for bins.
FEW_TARGETS = 512
# Grids up to this size are counted cell by cell even where the targets are fewer.
FEW_CELLS = 2**14
# A grid is counted cell by cell up to this size; on larger ones only occupied cells exist.
MAX_DENSE_CELLS = 2**20
# On a GPU reading which cells are occupied stalls, and is not worth it up to this size.
KEEP_EMPTY_CELLS = 2**12
# Beyond so many cells float64 could not tell targets inside them apart.
MAX_CELLS = 2.0**40
# Pairs of a prediction and a group above which a sum would take minutes to hours.
MAX_PAIRS = 2e10
# What ``method="auto"`` allows itself in float64 where even the distinct targets are too many.
FLOAT64_TOLERANCE = 1e-9
# Above so many nodes per sigma, or in all, the evidence is not tabulated but summed per label.
TABLE_NODES_PER_SIGMA = 48
MAX_TABLE_NODES = 2**16
TABLE_MARGIN_SIGMAS = 16
# Where the noise density has kinks: two masses per group, two kinks each, seven nodes between them.
TABLE_NODES_PER_GROUP = 28


@dataclass(frozen=True)
class Grouping:
    """How a batch's targets become groups.

    method: see ``BMCLoss``; tolerance: largest error of log E that binning may cause; event_dim: 0
    for scalars, 1 for vectors; bins: whether groups may have a variance; smooth: whether the noise
    density is, as the Gaussian: cells then merge further, and a table needs few nodes; over_ranks:
    whether the targets are those of all ranks; pair_budget: whether the evidence costs a term per
    pair of label and group.
    """

    method: Method = "auto"
    tolerance: float = 1e-5
    event_dim: int = 0
    bins: bool = True
    smooth: bool = True
    over_ranks: bool = False
    pair_budget: bool = True


def batch_prior(
    target: Tensor, mask: Tensor | None, sigma: Tensor, grouping: Grouping
) -> tuple[TargetGroups, TargetExtent]:
    """Return the targets that count as groups, and their extent.

    Args:
        target: Targets of any shape, with the event axis last for vectors; finite also where the
            mask hides them.
        mask: One entry per label, True counts, or None.
        sigma: Noise scale, shape () or one per label.
        grouping: How to group.

    Returns:
        Groups, none where no target counts; those of all ranks where they take part.

    Raises:
        ValueError: More pairs of label and group than can be summed.

    Example:
        >>> target = torch.tensor([1.0, 3.0, 1.0])
        >>> batch_prior(target, None, torch.tensor(1.0), Grouping())[0].counts
        tensor([2., 1.], dtype=torch.float64)
    """
    extent = target_extent(target, mask, sigma, grouping.event_dim, grouping.over_ranks)
    if extent.counted == 0:
        return single_targets(_valid(target, mask, grouping.event_dim)), extent
    binned = grouping.method == "binned" or (
        grouping.method == "auto"
        and grouping.bins
        and target.dtype != torch.float64
        and extent.counted > FEW_TARGETS
    )
    if binned:
        groups = _binned(target, mask, extent, grouping)
    else:
        groups = _kept_apart(target, mask, grouping)
        if grouping.method == "auto" and grouping.bins and _pairs(groups, extent) > MAX_PAIRS:
            groups = _merged(groups, extent, grouping, FLOAT64_TOLERANCE)
    if grouping.pair_budget:
        _require_affordable(groups, extent, grouping, target.dtype)
    return groups, extent


def _kept_apart(target: Tensor, mask: Tensor | None, grouping: Grouping) -> TargetGroups:
    """Return every target, or every distinct target, as a group."""
    values = _valid(target, mask, grouping.event_dim)
    if grouping.method == "exact":
        groups = single_targets(values)
        return gather_groups(groups) if grouping.over_ranks else groups
    groups = equal_targets(values)
    if not grouping.over_ranks:
        return groups
    everyone = gather_groups(groups)
    return equal_targets(everyone.means, everyone.counts)


def _binned(
    target: Tensor, mask: Tensor | None, extent: TargetExtent, grouping: Grouping
) -> TargetGroups:
    """Merge targets into bins; all ranks use the same ones, so that theirs can be merged again."""
    grid = _grid(extent, grouping.tolerance)
    if grid.cells <= min(MAX_DENSE_CELLS, max(FEW_CELLS, 4 * extent.counted)):
        counted = None if mask is None else mask.flatten()
        moments = grid.moments(target.detach().flatten(), counted)
        if grouping.over_ranks:
            add_over_ranks(moments)
        if moments.device.type != "cpu" and grid.cells <= KEEP_EMPTY_CELLS:
            return cell_groups(grid, moments)
        cell, moments = occupied_cells(moments)
    else:
        cell, moments = grid.sparse_moments(_valid(target, mask, 0))
        if grouping.over_ranks:
            cell, moments = _gather_cells(cell, moments)
    return _to_groups(grid, cell, moments, extent, grouping, grouping.tolerance)


def _to_groups(
    grid: Grid,
    cell: Tensor,
    moments: Tensor,
    extent: TargetExtent,
    grouping: Grouping,
    tolerance: float,
) -> TargetGroups:
    """Return occupied cells as groups, merged as far as the noise density allows."""
    if not grouping.smooth:
        return cell_groups(grid, moments, cell)
    return merged_groups(grid, cell, moments, extent.sigma, tolerance)


def _gather_cells(cell: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells that are occupied on any rank and their joint moments."""
    rows = gather_rows(torch.cat([cell[:, None].double(), moments.T], 1))
    occupied, owner = torch.unique(rows[:, 0].long(), return_inverse=True)
    joint = rows.new_zeros(len(moments), len(occupied)).index_add_(1, owner, rows[:, 1:].T)
    return occupied, joint


def _merged(
    groups: TargetGroups, extent: TargetExtent, grouping: Grouping, tolerance: float
) -> TargetGroups:
    """Merge groups of equal targets."""
    grid = _grid(extent, tolerance)
    cell, moments = grid.sparse_moments(groups.means, groups.counts)
    return _to_groups(grid, cell, moments, extent, grouping, tolerance)


def _grid(extent: TargetExtent, tolerance: float) -> Grid:
    """Return bins over the targets' range, as narrow as the noise scale wants them."""
    reach = extent.high - extent.low
    width = max(cell_width(extent.sigma, tolerance), reach / MAX_CELLS)
    return Grid(extent.low, width, int(reach / width) + 1)


def _valid(target: Tensor, mask: Tensor | None, event_dim: int) -> Tensor:
    """Return the targets that count, (N,) or (N, D)."""
    target = target.detach()
    if mask is not None:
        return target[mask]
    return target.reshape(-1, target.shape[-1]) if event_dim else target.flatten()


def _pairs(groups: TargetGroups, extent: TargetExtent) -> float:
    return float(extent.labels) * len(groups.counts)


def _require_affordable(
    groups: TargetGroups, extent: TargetExtent, grouping: Grouping, dtype: torch.dtype
) -> None:
    """Raise a ValueError where summing over the groups would take hours."""
    pairs = _pairs(groups, extent)
    if grouping.bins and dtype != torch.float64:  # the evidence is tabulated
        sigmas = (extent.high - extent.low) / extent.sigma + 2 * TABLE_MARGIN_SIGMAS
        nodes = sigmas * TABLE_NODES_PER_SIGMA
        if not grouping.smooth:
            nodes += TABLE_NODES_PER_GROUP * len(groups.counts)
        if nodes < min(MAX_TABLE_NODES, extent.labels):
            pairs = nodes * len(groups.counts)
    if pairs <= MAX_PAIRS:
        return
    if not grouping.bins:
        advice = "pass fewer labels, or take BNILoss, whose prior does not grow with the batch"
    elif grouping.method in ("auto", "binned"):
        advice = "raise tolerance or the noise scale, pass fewer labels, or take GAILoss or BNILoss"
    else:
        advice = "use method='auto' or method='binned', which merges targets within the tolerance"
    raise ValueError(
        f"method={grouping.method!r} gives {len(groups.counts)} groups of targets for "
        f"{extent.labels} labels: {pairs:.1e} pairs to sum, of at most {MAX_PAIRS:.0e}; {advice}"
    )
