"""Masks, chunks and sums that all losses share."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

Mask = Tensor | None  # boolean, True counts; None: all of them
Reduction = Literal["mean", "sum", "none"]

# On a CPU the temporaries of so many labels stay in the cache.
CACHE_LABELS = 2**15
# Elsewhere launches set the time; a temporary of so many float32 takes 16 MiB.
DEVICE_LABELS = 2**22

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def compute_dtype(preds: Tensor) -> torch.dtype:
    """Return float64 for float64 predictions and float32 for everything narrower."""
    return torch.float64 if preds.dtype == torch.float64 else torch.float32


def chunks(rows: int, first: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Return the same rows of several tensors at a time; None stays None."""
    for start in range(0, first.shape[0], rows):
        part = slice(start, start + rows)
        yield first[part], *(other if other is None else other[part] for other in others)


def hide(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``values`` with 0 where the mask, which may broadcast, is False, even for NaN."""
    if mask is None:
        return values
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(mask, values, 0)
    hidden: Tensor = _Hidden.apply(values, mask)
    return hidden


class _Hidden(torch.autograd.Function):
    """``torch.where(mask, values, 0)`` by the bits, which on a CPU is many times as fast."""

    @staticmethod
    def forward(values: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        integers = _INTEGERS[values.element_size()]
        bits = mask.expand_as(values).to(integers).neg_()  # all of them, or none
        return bits.bitwise_and_(values.view(integers)).view(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # type: ignore[override]
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (mask,) = ctx.saved_tensors
        return hide(grad, mask), None


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a backward pass that is an error where its own graph is recorded."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the evidence has no second derivative: expected a backward pass with "
                "create_graph=False"
            )
        return backward(ctx, *grads)

    return checked


def all_finite(preds: Tensor, target: Tensor, mask: Tensor | None) -> bool:
    """Return whether no flat label that counts is NaN or infinite, without full-size temporaries.

    False is not certain, for differences and their sum may overflow. Stalls a device.
    """
    wide = torch.promote_types(preds.dtype, torch.float32)
    for predicted, true, counts in chunks(CACHE_LABELS, preds, target, mask):
        if not math.isfinite(hide(predicted.to(wide) - true, counts).sum()):
            return False
    return True


def reduce(values: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce finite elementwise losses over the entries that count; masked ones are 0.

    ``"mean"`` of an empty mask is exactly 0 with a gradient path; ``"sum"`` is this rank's alone.
    """
    values = hide(values, mask)
    if reduction == "none":
        return values
    # Sums over millions of pixels in float32 lose digits that the validation curve shows.
    total = double_sum(values)
    if reduction == "mean":
        total = joint_mean(total, count_labels(values, mask))
    return total.to(values.dtype)


def count_labels(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return how many labels count, in float64."""
    if mask is not None:
        return mask.count_nonzero().double()
    return torch.full((), values.numel(), dtype=torch.float64, device=values.device)


def double_sum(values: Tensor) -> Tensor:
    """Return the sum in float64 without a copy of all values in float64."""
    if torch.compiler.is_compiling():
        return values.sum(dtype=torch.float64)
    total: Tensor = _DoubleSum.apply(values)
    return total


class _DoubleSum(torch.autograd.Function):
    """A function, for autograd would join the parts' gradients at the cost of a squared error."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:  # type: ignore[override]
        rows = CACHE_LABELS if values.device.type == "cpu" else DEVICE_LABELS
        parts = torch.split(values.reshape(-1), rows)
        return torch.stack([part.sum(dtype=torch.float64) for part in parts]).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # type: ignore[override]
        ctx.dtype, ctx.shape = inputs[0].dtype, inputs[0].shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad.to(ctx.dtype).expand(ctx.shape)


def joint_mean(total: Tensor, count: Tensor) -> Tensor:
    """Return what averages over W ranks to the joint mean: the sum times W over the joint count."""
    ranks = sum_over_ranks(count, total)
    return total / (count.clamp(min=1) / ranks)


def mean_over_ranks(quantity: Tensor, mask: Tensor | None, values: Tensor) -> Tensor:
    """Return the mean of a quantity over the labels that count; detached if ranks share it."""
    sums = torch.stack([double_sum(hide(quantity, mask)), count_labels(quantity, mask)])
    joint = sums.detach().clone()
    if sum_over_ranks(joint, values) > 1:
        sums = joint
    return (sums[0] / sums[1].clamp(min=1)).to(quantity.dtype)


def sum_over_ranks(sums: Tensor, values: Tensor) -> int:
    """Add ``sums`` over all ranks in place and return how many there are.

    Only while ``values`` records gradients: in validation ranks may see different numbers of
    batches, and one would wait for the others forever.
    """
    if not (values.requires_grad and dist.is_available() and dist.is_initialized()):
        return 1
    dist.all_reduce(sums)
    return dist.get_world_size()
