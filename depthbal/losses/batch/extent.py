"""How many targets a batch has and how far they reach: what its grouping depends on."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.losses.batch.gathering import gather_equal


class TargetExtent(NamedTuple):
    """Numbers that all ranks agree on, so that all of them group alike.

    labels: most labels on one rank, masked ones included; counted: labels that count, on all ranks;
    low and high: their range, along the coordinate with the widest for vectors; sigma: the
    smallest noise scale of a label that counts.
    """

    labels: int
    counted: int
    low: float
    high: float
    sigma: float

    @property
    def distinct(self) -> bool:
        """Whether at least two targets differ."""
        return self.high > self.low


def target_extent(
    target: Tensor, mask: Tensor | None, sigma: Tensor, event_dim: int, over_ranks: bool
) -> TargetExtent:
    """Measure the targets that count; a device is read once.

    Args:
        target: Finite targets of any shape, with the event axis last for vectors.
        mask: One entry per label, True counts, or None.
        sigma: Noise scale, shape () or one per label.
        event_dim: 0 for scalars, 1 for vectors.
        over_ranks: Whether all ranks take part.

    Example:
        >>> target_extent(torch.tensor([3.0, 1.0]), None, torch.tensor(0.5), 0, False)
        TargetExtent(labels=2, counted=2, low=1.0, high=3.0, sigma=0.5)
    """
    axes = target.shape[-1] if event_dim else 1
    flat = target.detach().reshape(-1, axes)
    counted = None if mask is None else mask.flatten()
    count = torch.full((), len(flat), device=flat.device) if mask is None else mask.sum()
    low = _smallest(flat, counted)
    high = -_smallest(-flat, counted)
    smallest_sigma = _smallest(sigma.reshape(-1, 1), counted if sigma.ndim else None)
    labels = torch.full((), len(flat), device=flat.device)
    row = torch.cat([torch.stack([labels, count]).double(), smallest_sigma, low, high])
    rows = (gather_equal(row) if over_ranks else row[None]).tolist()
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
