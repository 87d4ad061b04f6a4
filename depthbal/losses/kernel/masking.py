"""Zeros in place of what a mask hides."""

from typing import Any

import torch
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def hide(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``values`` with 0 where the mask is False, even in place of NaN.

    Args:
        values: Floating point.
        mask: True where values stay, of a shape that broadcasts to theirs; None keeps all.

    Example:
        >>> hide(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]))
        tensor([1., 0.])
    """
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
