"""What ranks tell each other about their targets."""

import torch
import torch.distributed as dist
from torch import Tensor

from depthbal.losses.batch.groups import TargetGroups


def ranks_to_gather() -> int:
    """Return the number of ranks in the process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def add_over_ranks(amounts: Tensor) -> None:
    """Replace amounts by their sum over all ranks."""
    dist.all_reduce(amounts)


def gather_equal(row: Tensor) -> Tensor:
    """Return one tensor per rank, of the same shape on all of them, stacked."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row.contiguous())
    return torch.stack(rows)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks below each other; ranks may hold different numbers, or none.

    Sizes travel first, then every rank's rows padded to the largest number.
    """
    sizes = gather_equal(torch.tensor(len(rows), device=rows.device)).tolist()
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    everyone = gather_equal(padded)
    return torch.cat([part[:size] for part, size in zip(everyone, sizes, strict=True)])


def gather_groups(groups: TargetGroups) -> TargetGroups:
    """Return the groups of equal targets of all ranks, side by side."""
    means = groups.means if groups.means.ndim == 2 else groups.means[:, None]
    rows = gather_rows(torch.cat([groups.counts[:, None], means], 1))
    means = rows[:, 1:] if groups.means.ndim == 2 else rows[:, 1]
    return TargetGroups(rows[:, 0], means, torch.zeros_like(means))
