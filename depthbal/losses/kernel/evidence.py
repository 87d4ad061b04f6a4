"""The evidence as an operation of autograd, and what is asked of it.

    log E(p) = log of the integral of f(y - p; sigma) p_train(y) dy

Its derivatives are soft-max moments, so the forward pass computes them and the backward pass is a
multiplication: memory is O(predictions), whatever the size of the prior.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from depthbal.losses.kernel.exact import Evidence, Wanted
from depthbal.losses.reduction import CACHE_LABELS, chunks, compute_dtype, first_order, hide
from depthbal.priors import GaussianMixture

SigmaOf = Callable[[Tensor], Tensor]
Prepared = Callable[[Tensor], Evidence]


class Request(NamedTuple):
    """What is asked of the evidence besides predictions, noise scale and prior."""

    wanted: Wanted = Wanted()
    sigma_of: SigmaOf | None = None
    tolerance: float = 1e-5


def stored_evidence(
    prepare: Callable[..., Prepared],
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    request: Request,
) -> Tensor:
    """Return the evidence that ``prepare`` of a noise family gives, with stored derivatives."""
    preds = preds.to(compute_dtype(preds))
    labels = preds.shape
    if prior.event_dim:
        size = prior.means.shape[1]
        if preds.ndim == 0 or preds.shape[-1] != size:
            raise ValueError(
                f"expected vectors of the prior's dimension {size} on the last axis, got preds "
                f"{tuple(preds.shape)}"
            )
        labels = preds.shape[:-1]
    if isinstance(noise_sigma, Tensor):
        sigma = noise_sigma.to(preds.device, preds.dtype)
    else:  # filled in on the device: copying one number there would stall it
        sigma = torch.full((), noise_sigma, dtype=preds.dtype, device=preds.device)
    if sigma.numel() != 1 and sigma.shape != labels:
        raise ValueError(
            f"expected noise_sigma with one element or of shape {tuple(labels)}, one per label, "
            f"got {tuple(sigma.shape)}"
        )
    sigma = sigma.reshape(()) if sigma.numel() == 1 else sigma.flatten()
    flat = preds.reshape(-1, *preds.shape[len(labels) :])
    if not flat.numel():
        return (flat.sum() * 0 + sigma.sum() * 0).expand(labels)
    request = request._replace(wanted=wanted_derivatives(flat, sigma))
    value: Tensor = _Stored.apply(flat, sigma, lambda p, s: prepare(p, s, prior, request)(p))
    return value.view(labels)


def wanted_derivatives(preds: Tensor, sigma: Tensor) -> Wanted:
    """Return which derivatives are being recorded."""
    recording = torch.is_grad_enabled()
    return Wanted(recording and preds.requires_grad, recording and sigma.requires_grad)


def require_positive(sigma: Tensor) -> None:
    """Raise a ValueError for a sigma on the CPU that is not positive; elsewhere it would stall."""
    if sigma.device.type == "cpu" and not bool((sigma > 0).all()):
        smallest = sigma.min() if sigma.numel() else sigma
        raise ValueError(f"expected a positive noise_sigma in label units, got {smallest}")


def extent(preds: Tensor, mask: Tensor | None, sigma: Tensor, inside: Tensor) -> Tensor:
    """Return ends of a range that holds the predictions that count, (2,) in float64.

    ``inside`` stands for those that do not.
    """
    if mask is None:
        return torch.stack(preds.aminmax()).double()
    inside = inside.to(sigma)
    ends = [
        torch.stack(hide(part.to(sigma.dtype) - inside, counts).aminmax())
        for part, counts in chunks(CACHE_LABELS, preds, mask)
    ]
    low, high = (inside + torch.stack(ends)).double().unbind(1)
    return torch.stack([low.min(), high.max()])


class _Stored(torch.autograd.Function):
    """Forward stores the derivatives that will be needed; backward multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, preds: Tensor, sigma: Tensor, compute: Callable[[Tensor, Tensor], Evidence]
    ) -> Tensor:
        evidence = compute(preds, sigma)
        ctx.save_for_backward(evidence.by_preds, evidence.by_sigma)
        ctx.one_sigma = sigma.ndim == 0
        return evidence.value

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_preds, by_sigma = ctx.saved_tensors
        if by_preds is not None:
            by_preds = by_preds * (grad if by_preds.ndim == 1 else grad[:, None])
        if by_sigma is not None:
            by_sigma = grad * by_sigma
            if ctx.one_sigma:
                by_sigma = by_sigma.sum(dtype=torch.float64).to(grad.dtype)
        return by_preds, by_sigma, None
