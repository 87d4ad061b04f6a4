"""Checks and masked reductions that all losses share."""

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from depthbal.losses.kernel.chunks import CACHE_LABELS, DEVICE_LABELS, chunks
from depthbal.losses.kernel.masking import hide

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


def all_finite(preds: Tensor, target: Tensor, mask: Tensor | None) -> bool:
    """Return whether no scalar that counts is NaN or infinite, without temporaries of full size.

    False is not certain, for differences and their sum may overflow. Stalls a device.

    Args:
        preds: Flat, (n,).
        target: Flat, (n,).
        mask: Flat, (n,), True counts, or None.

    Example:
        >>> all_finite(torch.tensor([1.0, torch.nan]), torch.zeros(2), torch.tensor([True, False]))
        True
    """
    wide = torch.promote_types(preds.dtype, torch.float32)
    for predicted, true, counts in chunks(CACHE_LABELS, preds, target, mask):
        if not math.isfinite(hide(predicted.to(wide) - true, counts).sum()):
            return False
    return True


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
    values = hide(values, mask)
    if reduction == "none":
        return values
    # Sums over millions of pixels in float32 lose digits that the validation curve shows.
    total = double_sum(values)
    if reduction == "mean":
        count = (
            total.new_full((), values.numel()) if mask is None else mask.count_nonzero().double()
        )
        total = joint_mean(total, count)
    return total.to(values.dtype)


def double_sum(values: Tensor) -> Tensor:
    """Return the sum in float64 without a copy of all values in float64.

    Example:
        >>> double_sum(torch.tensor([0.25, 0.5]))
        tensor(0.7500, dtype=torch.float64)
    """
    if torch.compiler.is_compiling():
        return values.sum(dtype=torch.float64)
    total: Tensor = _DoubleSum.apply(values)
    return total


class _DoubleSum(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor) -> Tensor:  # type: ignore[override]
        total = values.new_zeros((), dtype=torch.float64)
        rows = CACHE_LABELS if values.device.type == "cpu" else DEVICE_LABELS
        for (part,) in chunks(rows, values.reshape(-1)):
            total += part.sum(dtype=torch.float64)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # type: ignore[override]
        ctx.dtype, ctx.shape = inputs[0].dtype, inputs[0].shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad.to(ctx.dtype).expand(ctx.shape)


def joint_mean(total: Tensor, count: Tensor) -> Tensor:
    """Return what averages over the ranks to the mean over the entries of all of them.

    Args:
        total: This rank's sum; while it records gradients the mean is over all ranks.
        count: How many entries are in it, in float64.

    Example:
        >>> joint_mean(torch.tensor(6.0), torch.tensor(4.0))
        tensor(1.5000)
    """
    count = count.clone()
    ranks = sum_over_ranks(count, total)
    return total / (count.clamp(min=1) / ranks)


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
    sums = products.reshape(2, -1).sum(1, dtype=torch.float64)
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
