"""Derivatives that have none of their own."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a backward pass that is an error where its own graph is recorded.

    ``once_differentiable`` alone drops the second derivative without a word where the incoming
    gradient is a constant, as that of a loss is.
    """
    once = once_differentiable(backward)

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the evidence has no second derivative: expected a backward pass with "
                "create_graph=False"
            )
        return once(ctx, *grads)

    return checked
