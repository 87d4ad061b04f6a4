"""The batch's own targets, on all ranks, as groups: the prior of BMC."""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from depthbal.losses.bins import Grid, TargetGroups, merged_groups
from depthbal.losses.buffers import DoubleBuffers
from depthbal.losses.families import GaussianFamily, LaplaceFamily
from depthbal.losses.family import NoiseFamily

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
MEMORY_BINS = 1024


class Grouping(NamedTuple):
    """How a batch's targets become groups.

    method: see ``BMCLoss``; tolerance: largest error of log E that binning may cause; event_dim: 0
    for scalars, 1 for vectors; family: of the noise; over_ranks: whether the targets are those of
    all ranks; one_sigma: whether there is one noise scale.
    """

    method: Method = "auto"
    tolerance: float = 1e-5
    event_dim: int = 0
    family: NoiseFamily = GaussianFamily()
    over_ranks: bool = False
    one_sigma: bool = True


class TargetExtent(NamedTuple):
    """How far the targets reach, on which all ranks agree, so that all of them group alike.

    labels: most labels on one rank, masked ones included; counted: labels that count, on all ranks;
    low and high: their range, along the coordinate with the widest for vectors; sigma: the
    smallest noise scale of a label that counts.
    """

    labels: int
    counted: int
    low: float
    high: float
    sigma: float


def batch_prior(
    target: Tensor, mask: Tensor | None, sigma: Tensor, grouping: Grouping
) -> tuple[TargetGroups, TargetExtent]:
    """Return the targets that count as groups, none where none counts, and their extent.

    Targets are of any shape, with the event axis last for vectors, finite also where the mask hides
    them; sigma is () or one per label. More pairs of label and group than can be summed are a
    ValueError.
    """
    extent = _extent(target, mask, sigma, grouping.event_dim, grouping.over_ranks)
    if extent.counted == 0:
        return single_targets(_valid(target, mask, grouping.event_dim)), extent
    of_scalars = grouping.method == "auto" and not grouping.event_dim
    many = target.dtype != torch.float64 and extent.counted > FEW_TARGETS
    if grouping.method == "binned" or (of_scalars and many):
        groups = _binned(target, mask, extent, grouping)
    else:
        groups = _kept_apart(target, mask, grouping)
        if of_scalars and extent.labels * len(groups.counts) > MAX_PAIRS:
            grid = _grid(extent, grouping._replace(tolerance=FLOAT64_TOLERANCE))
            cell, moments = grid.sparse_moments(groups.means, groups.counts)
            groups = _to_groups(grid, cell, moments, extent, grouping, FLOAT64_TOLERANCE)
    _require_affordable(groups, extent, grouping, target.dtype)
    return groups, extent


def single_targets(values: Tensor) -> TargetGroups:
    """Return every target, (N,) scalars or (N, D) vectors, as its own group."""
    means = values.detach().double()
    return TargetGroups(means.new_ones(len(means)), means, torch.zeros_like(means))


def equal_targets(values: Tensor, counts: Tensor | None = None) -> TargetGroups:
    """Return one group per distinct target, (N,) scalars or (N, D) vectors, which is exact.

    ``counts`` are how many targets each value stands for; 1 when omitted.
    """
    dim = None if values.ndim == 1 else 0
    if counts is None:
        distinct, numbers = torch.unique(values.detach(), dim=dim, return_counts=True)
        totals = numbers.double()
    else:
        distinct, owner = torch.unique(values.detach(), dim=dim, return_inverse=True)
        totals = counts.new_zeros(len(distinct)).index_add_(0, owner, counts)
    means = distinct.double()
    return TargetGroups(totals, means, torch.zeros_like(means))


def _extent(
    target: Tensor, mask: Tensor | None, sigma: Tensor, event_dim: int, over_ranks: bool
) -> TargetExtent:
    """Measure the targets that count; a device is read once."""
    axes = target.shape[-1] if event_dim else 1
    flat = target.detach().reshape(-1, axes)
    counted = None if mask is None else mask.flatten()
    count = torch.full((), len(flat), device=flat.device) if mask is None else mask.sum()
    low, high = _smallest(flat, counted), -_smallest(-flat, counted)
    smallest_sigma = _smallest(sigma.reshape(-1, 1), counted if sigma.ndim else None)
    labels = torch.full((), len(flat), device=flat.device)
    row = torch.cat([torch.stack([labels, count]).double(), smallest_sigma, low, high])
    rows = (_gather_equal(row) if over_ranks else row[None]).tolist()
    lows = [min(row[3 + axis] for row in rows) for axis in range(axes)]
    highs = [max(row[3 + axes + axis] for row in rows) for axis in range(axes)]
    widest = max(range(axes), key=lambda axis: highs[axis] - lows[axis])
    return TargetExtent(
        labels=int(max(row[0] for row in rows)),
        counted=int(sum(row[1] for row in rows)),
        low=lows[widest],
        high=highs[widest],
        sigma=min(row[2] for row in rows),
    )


def _smallest(columns: Tensor, counted: Tensor | None) -> Tensor:
    """Return the smallest counted entry of every column in float64, infinity without any."""
    if counted is not None:
        columns = torch.where(counted[:, None], columns, math.inf)
    if not len(columns):
        return torch.full((columns.shape[1],), math.inf, device=columns.device).double()
    return columns.amin(0).double()


def _kept_apart(target: Tensor, mask: Tensor | None, grouping: Grouping) -> TargetGroups:
    """Return every target, or every distinct target, as a group."""
    values = _valid(target, mask, grouping.event_dim)
    exact = grouping.method == "exact"
    groups = single_targets(values) if exact else equal_targets(values)
    if not grouping.over_ranks:
        return groups
    means = groups.means if values.ndim == 2 else groups.means[:, None]
    rows = _gather_rows(torch.cat([groups.counts[:, None], means], 1))
    means = rows[:, 1:] if values.ndim == 2 else rows[:, 1]
    if exact:
        return TargetGroups(rows[:, 0], means, torch.zeros_like(means))
    return equal_targets(means, rows[:, 0])


def _binned(
    target: Tensor, mask: Tensor | None, extent: TargetExtent, grouping: Grouping
) -> TargetGroups:
    """Merge targets into bins; all ranks use the same ones, so that theirs can be merged again."""
    grid = _grid(extent, grouping)
    orders = 4 if isinstance(grouping.family, GaussianFamily) else 2
    if grid.cells <= min(MAX_DENSE_CELLS, max(FEW_CELLS, 4 * extent.counted)):
        counted = None if mask is None else mask.flatten()
        moments = grid.moments(target.detach().flatten(), counted, orders=orders)
        if grouping.over_ranks:
            dist.all_reduce(moments)
        if moments.device.type != "cpu" and grid.cells <= KEEP_EMPTY_CELLS:
            return grid.groups(moments)
        cell = moments[0].nonzero().flatten()
        moments = moments[:, cell]
    else:
        cell, moments = grid.sparse_moments(_valid(target, mask, 0), orders=orders)
        if grouping.over_ranks:
            rows = _gather_rows(torch.cat([cell[:, None].double(), moments.T], 1))
            cell, owner = torch.unique(rows[:, 0].long(), return_inverse=True)
            moments = rows.new_zeros(orders + 1, len(cell)).index_add_(1, owner, rows[:, 1:].T)
    return _to_groups(grid, cell, moments, extent, grouping, grouping.tolerance)


def _to_groups(
    grid: Grid,
    cell: Tensor,
    moments: Tensor,
    extent: TargetExtent,
    grouping: Grouping,
    tolerance: float,
) -> TargetGroups:
    """Return occupied cells as groups, merged where the noise is Gaussian."""
    if not isinstance(grouping.family, GaussianFamily):
        return grid.groups(moments, cell)
    return merged_groups(grid, cell, moments, extent.sigma, tolerance)


def _grid(extent: TargetExtent, grouping: Grouping) -> Grid:
    """Return bins over the targets' range, as narrow as the noise wants them."""
    reach = extent.high - extent.low
    narrow = grouping.family.cell_width(extent.sigma, grouping.tolerance)
    width = max(narrow, reach / MAX_CELLS)
    return Grid(extent.low, width, int(reach / width) + 1)


def _valid(target: Tensor, mask: Tensor | None, event_dim: int) -> Tensor:
    """Return the targets that count, (N,) or (N, D)."""
    target = target.detach()
    if mask is not None:
        return target[mask]
    return target.reshape(-1, target.shape[-1]) if event_dim else target.flatten()


def _require_affordable(
    groups: TargetGroups, extent: TargetExtent, grouping: Grouping, dtype: torch.dtype
) -> None:
    """Raise a ValueError where summing over the groups would take hours."""
    laplace = isinstance(grouping.family, LaplaceFamily)
    if laplace and grouping.one_sigma:
        return  # no pairs are summed
    pairs = float(extent.labels) * len(groups.counts)
    if not (grouping.event_dim or laplace or dtype == torch.float64):  # the evidence is tabulated
        sigmas = (extent.high - extent.low) / extent.sigma + 2 * TABLE_MARGIN_SIGMAS
        nodes = sigmas * TABLE_NODES_PER_SIGMA
        if nodes < min(MAX_TABLE_NODES, extent.labels):
            pairs = nodes * len(groups.counts)
    if pairs <= MAX_PAIRS:
        return
    if grouping.event_dim:
        advice = "pass fewer labels, or take BNILoss, whose prior does not grow with the batch"
    elif grouping.method in ("auto", "binned"):
        advice = "raise tolerance or the noise scale, pass fewer labels, or take GAILoss or BNILoss"
    else:
        advice = "use method='auto' or method='binned', which merges targets within the tolerance"
    raise ValueError(
        f"method={grouping.method!r} gives {len(groups.counts)} groups of targets for "
        f"{extent.labels} labels: {pairs:.1e} pairs to sum, of at most {MAX_PAIRS:.0e}; {advice}"
    )


def ranks_to_gather() -> int:
    """Return the number of ranks in the process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _gather_equal(row: Tensor) -> Tensor:
    """Return one tensor per rank, of the same shape on all of them, stacked."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row.contiguous())
    return torch.stack(rows)


def _gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks below each other; ranks may hold different numbers, or none.

    Sizes travel first, then every rank's rows padded to the largest number.
    """
    sizes = _gather_equal(torch.tensor(len(rows), device=rows.device)).tolist()
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    everyone = _gather_equal(padded)
    return torch.cat([part[:size] for part, size in zip(everyone, sizes, strict=True)])


class LabelMemory(nn.Module):
    """The targets of past batches in 1,024 bins of count, mean and variance, fading with age.

    A batch that is k steps old counts by the power k of batches / (batches + 1), so that the whole
    past weighs as much as ``batches`` batches. The state is a buffer of constant size, saved and
    restored with the loss. Targets beyond ``label_range`` count in the outermost bins.
    """

    def __init__(self, label_range: tuple[float, float], batches: float) -> None:
        super().__init__()
        low, high = label_range
        self.grid = Grid(low, (high - low) / MEMORY_BINS, MEMORY_BINS)
        self.decay = batches / (batches + 1)
        self._state = DoubleBuffers("moments", "ends")
        self._state.set(torch.zeros(3, MEMORY_BINS), torch.tensor([low, high]).double())

    @property
    def moments(self) -> Tensor:
        """Count and moments per bin, (3, 1024)."""
        return self._state.get("moments")

    @property
    def is_empty(self) -> bool:
        """Whether it has met no target yet; stalls a GPU."""
        return not bool(self.moments[0].sum() > 0)

    def groups(self) -> TargetGroups:
        """Return the bins as groups, empty ones with a count of 0."""
        return self.grid.groups(self.moments)

    def update(self, groups: TargetGroups) -> None:
        """Add a batch's targets and let all fade by one step."""
        with torch.no_grad():
            batch = self.grid.moments(groups.means, groups.counts, groups.variances, orders=2)
            # a new tensor: groups that were handed out are views of the old one
            self._state.set((self.moments + batch) * self.decay, self._state.get("ends"))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}_state.ends")
        own = self._state.get("ends")
        if saved is not None and not torch.equal(saved.to(own), own):
            errors: list[str] = args[-1]
            errors.append(
                f"the memory was saved with label_range {tuple(saved.tolist())}, this loss has "
                f"{tuple(own.tolist())}"
            )
