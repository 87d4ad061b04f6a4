"""Targets as groups: what a batch tells of the label distribution, in the form that travels."""

from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.priors import GaussianMixture


class TargetGroups(NamedTuple):
    """Targets merged into K groups, in float64.

    counts (K,), not normalised; means (K,) of scalars or (K, D) of vectors, label units; variances
    within the groups, of the means' shape.
    """

    counts: Tensor
    means: Tensor
    variances: Tensor

    def mixture(self) -> GaussianMixture:
        """Return the groups as p_train.

        Example:
            >>> equal_targets(torch.tensor([1.0, 3.0, 1.0, 1.0])).mixture().weights
            tensor([0.7500, 0.2500], dtype=torch.float64)
        """
        return GaussianMixture.unchecked(
            self.counts / self.counts.sum(), self.means, self.variances
        )


def single_targets(values: Tensor) -> TargetGroups:
    """Return every target as its own group.

    Args:
        values: (N,) scalars or (N, D) vectors.
    """
    means = values.detach().double()
    return TargetGroups(means.new_ones(len(means)), means, torch.zeros_like(means))


def equal_targets(values: Tensor, counts: Tensor | None = None) -> TargetGroups:
    """Return one group per distinct target, which is exact.

    Args:
        values: (N,) scalars or (N, D) vectors; of the latter equal rows are merged.
        counts: How many targets each value stands for, (N,); 1 when omitted.

    Example:
        >>> equal_targets(torch.tensor([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0]])).counts
        tensor([1., 2.], dtype=torch.float64)
    """
    values = values.detach()
    if counts is None:
        if values.ndim == 1:
            distinct, numbers = torch.unique(values, return_counts=True)
        else:
            distinct, numbers = torch.unique(values, dim=0, return_counts=True)
        means, totals = distinct.double(), numbers.double()
    else:
        dim = None if values.ndim == 1 else 0
        distinct, owner = torch.unique(values, dim=dim, return_inverse=True)
        means = distinct.double()
        totals = means.new_zeros(len(means)).index_add_(0, owner, counts.double())
    return TargetGroups(totals, means, torch.zeros_like(means))


def join_groups(first: TargetGroups, second: TargetGroups) -> TargetGroups:
    """Return the groups of both, side by side."""
    return TargetGroups(*(torch.cat(parts) for parts in zip(first, second, strict=True)))
