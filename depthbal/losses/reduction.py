"""Checks and masked reductions that all losses share."""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def require_matching(
    preds: Tensor, target: Tensor, mask: Tensor | None, event_dim: int = 0
) -> None:
    """Raise a ValueError unless shapes agree exactly and the types can be compared.

    With ``event_dim=1`` the last axis holds one label's coordinates, and the mask lacks it.

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
    if preds.ndim < event_dim:
        raise ValueError("expected vectors along the last axis (event_dim=1), got single numbers")
    if mask is None:
        return
    labels = preds.shape[: preds.ndim - event_dim]
    if mask.shape != labels:
        raise ValueError(
            f"mask {tuple(mask.shape)} and preds {tuple(preds.shape)} differ: expected a mask of "
            f"shape {tuple(labels)}, one entry per label"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"expected a boolean mask where True counts, got {mask.dtype}")


def entry_mask(mask: Tensor | None, event_dim: int) -> Tensor | None:
    """Return the mask of labels as one that broadcasts over the labels' coordinates."""
    return mask if mask is None or event_dim == 0 else mask[..., None]


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


def mean_over_ranks(quantity: Tensor, mask: Tensor | None, values: Tensor) -> Tensor:
    """Return the detached mean of a quantity over the labels that count; 0 where none does.

    Args:
        quantity: One number per label.
        mask: Of the same shape, True counts, or None.
        values: The loss; while it records gradients the mean is over all ranks.

    Example:
        >>> mean_over_ranks(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1, 1, 0]), torch.zeros(3))
        tensor(1.5000)
    """
    counted = torch.ones_like(quantity) if mask is None else mask.to(quantity)
    products = torch.stack([quantity.detach() * counted, counted])
    sums = products.flatten(1).sum(1, dtype=torch.float64)
    sum_over_ranks(sums, values)
    return (sums[0] / sums[1].clamp(min=1)).to(quantity.dtype)


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
