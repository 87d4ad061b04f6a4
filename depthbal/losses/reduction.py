"""Checks and masked reductions that all losses share."""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def require_matching(preds: Tensor, target: Tensor, mask: Tensor | None) -> None:
    """Raise a ValueError unless shapes agree exactly and the types can be compared.

    Example:
        >>> require_matching(torch.zeros(4), torch.zeros(4, 1), None)
        Traceback (most recent call last):
        ValueError: preds (4,) and target (4, 1) differ; nothing is broadcast: reshape or resize one
    """
    if preds.shape != target.shape:
        raise ValueError(
            f"preds {tuple(preds.shape)} and target {tuple(target.shape)} differ; "
            "nothing is broadcast: reshape or resize one"
        )
    for name, tensor in (("preds", preds), ("target", target)):
        if not tensor.is_floating_point():
            raise ValueError(f"expected {name} in floating point, got {tensor.dtype}: use .float()")
    if mask is None:
        return
    if mask.shape != preds.shape:
        raise ValueError(f"mask {tuple(mask.shape)} and preds {tuple(preds.shape)} differ")
    if mask.dtype != torch.bool:
        raise ValueError(f"expected a boolean mask where True counts, got {mask.dtype}")


def count_non_finite(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the number of NaN or infinite entries that count, as a tensor on their device."""
    bad = ~torch.isfinite(values)
    return (bad if mask is None else bad & mask).sum()


def reduce(values: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce elementwise losses over the entries that count.

    ``"mean"`` of an empty mask is exactly 0 with a gradient path. While gradients are recorded in a
    process group of W ranks, the mean is the local sum times W over the number of valid entries on
    all ranks, so that averaging the gradients over ranks gives the gradient of the joint mean.

    Args:
        values: Elementwise losses, finite everywhere.
        mask: Boolean, True counts, or None.
        reduction: ``"mean"``, ``"sum"`` (of this rank alone) or ``"none"`` (masked entries are 0).
    """
    if mask is not None:
        values = torch.where(mask, values, torch.zeros_like(values))
    if reduction == "none":
        return values
    # Sums over millions of pixels in float32 lose digits that the validation curve shows.
    total = values.sum(dtype=torch.float64)
    if reduction == "mean":
        total = total / _valid_count(values, mask)
    return total.to(values.dtype)


def _valid_count(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the number of valid entries per rank that averages to the joint mean."""
    if mask is None:
        count = torch.full((), values.numel(), dtype=torch.float64, device=values.device)
    else:
        count = mask.sum(dtype=torch.float64)
    ranks = sum_over_ranks(count, values)
    return count.clamp(min=1) / ranks


def sum_over_ranks(sums: Tensor, values: Tensor) -> int:
    """Add ``sums`` over all ranks in place and return how many there are.

    Only while ``values`` records gradients: in validation ranks may see different numbers of
    batches, and one would wait for the others forever.

    Example:
        >>> sum_over_ranks(torch.ones(2), torch.zeros(3))
        1
    """
    if not (values.requires_grad and dist.is_available() and dist.is_initialized()):
        return 1
    dist.all_reduce(sums)
    return dist.get_world_size()
