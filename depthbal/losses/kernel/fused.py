"""The balanced loss of many scalar labels as one sum with one stored gradient.

    sum over valid i of a (p_i - y_i)^2 / (2 s^2) + b [log E(p_i) + log s sqrt(2 pi)]

for one noise scale s. Labels are taken chunk by chunk: the sum and its derivative by s are numbers,
so that all that survives a chunk is the gradient of its predictions. The backward pass multiplies
that by a number, and the whole holds as much memory as plain MSE.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from depthbal.losses.kernel.chunks import CACHE_LABELS, DEVICE_LABELS, chunks
from depthbal.losses.kernel.compiled import CompiledFunction, of_any_size, require_compiling
from depthbal.losses.kernel.evaluate import COMPILING_DEVICES, Request, prepare
from depthbal.losses.kernel.exact import Components, Evidence
from depthbal.losses.kernel.first_order import first_order
from depthbal.losses.kernel.masking import hide

# Temporaries of a chunk's size that are alive at once, rounded up.
TEMPORARIES = 8
# From so many labels on, what surrounds the evidence is compiled too, where something compiles.
COMPILED_LABELS = 2**16


class Terms(NamedTuple):
    """Factors a of the data term and b of the balancing term, and whether to count bad labels."""

    mse_weight: float = 1.0
    balance_weight: float = 1.0
    count_bad: bool = False


class BalancedSum(NamedTuple):
    """Sum of the loss over the labels that count, how many count, and how many of these are bad.

    total and counted in float64. bad: labels that count and whose error is NaN or infinite; 0 where
    they are not to be counted.
    """

    total: Tensor
    counted: Tensor
    bad: Tensor


def balanced_sum(
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None,
    sigma: Tensor,
    mixture: Components,
    terms: Terms,
    request: Request,
) -> BalancedSum:
    """Return the sum of the balanced loss, differentiable once by predictions and sigma.

    Args:
        preds: Flat predictions (n,) of any floating type; computed in the type of ``sigma``.
        target: Labels (n,).
        mask: (n,), True counts, or None. What it hides may be NaN.
        sigma: Noise scale, shape (), float32 or float64.
        mixture: The prior, in float64.
        terms: What is summed.
        request: How to compute the evidence; its ``wanted`` says what will be differentiated.

    Example:
        >>> mixture = Components(*torch.tensor([[0.0], [2.0], [3.0]]).double())
        >>> zeros, sigma = torch.zeros(2), torch.tensor(1.0)
        >>> total, counted, _ = balanced_sum(
        ...     zeros, zeros, None, sigma, mixture, Terms(), Request()
        ... )
        >>> round(total.item(), 4), counted.item()  # 2 (log N(0; 2, 4) + log sqrt(2 pi))
        (-2.3863, 2.0)
    """
    parts = _BalancedSum.apply(preds, sigma, target, mask, mixture, terms, request)
    return BalancedSum(*parts)


class _BalancedSum(torch.autograd.Function):
    """Forward stores the gradient of the predictions; backward multiplies it by a number."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        preds: Tensor,
        sigma: Tensor,
        target: Tensor,
        mask: Tensor | None,
        mixture: Components,
        terms: Terms,
        request: Request,
    ) -> tuple[Tensor, ...]:
        evidence = prepare(preds, sigma, mixture, request, mask)
        gradient, sums = _over_chunks(preds, target, mask, sigma, evidence, terms, request)
        counted, squares, log_evidence, by_sigma, bad = sums.unbind()
        scale = sigma.double()
        log_normaliser = scale.log() + 0.5 * math.log(2 * math.pi)
        data = terms.mse_weight * squares / scale**2
        total = data / 2 + terms.balance_weight * (log_evidence + counted * log_normaliser)
        by_sigma = terms.balance_weight * (by_sigma + counted / scale) - data / scale
        ctx.save_for_backward(gradient, by_sigma if request.wanted.by_sigma else None)
        ctx.mark_non_differentiable(counted, bad)
        return total, counted, bad

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, by_sigma = ctx.saved_tensors
        by_preds = None if gradient is None else gradient * grad.to(gradient.dtype)
        return by_preds, None if by_sigma is None else by_sigma * grad, *(None,) * 5


def _over_chunks(
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None,
    sigma: Tensor,
    evidence_of: Callable[[Tensor], Evidence],
    terms: Terms,
    request: Request,
) -> tuple[Tensor | None, Tensor]:
    """Return the gradient of all predictions, if it is wanted, and the sums over all labels."""
    dtype, device = sigma.dtype, preds.device
    gradient = torch.empty_like(preds, dtype=dtype) if request.wanted.by_preds else None
    sums = torch.zeros(5, dtype=torch.float64, device=device)
    pull = terms.mse_weight / sigma**2
    compiling = device.type in COMPILING_DEVICES and preds.numel() >= COMPILED_LABELS
    rows = min(
        CACHE_LABELS if device.type == "cpu" else DEVICE_LABELS,
        int(request.budget_mb * 2**20) // (TEMPORARIES * sigma.element_size()),
    )
    for predicted, true, counts, stored in chunks(max(1, rows), preds, target, mask, gradient):
        predicted = predicted.to(dtype)
        labels = (predicted, true.to(dtype), counts, *evidence_of(predicted))
        part = None
        if compiling:
            marked = (None if label is None else of_any_size(label)[0] for label in labels)
            part = _compiled_terms.run(device, *marked, pull, terms)
        if part is None:
            part = _chunk(*labels, pull, terms)
        if stored is not None:
            stored.copy_(part[0])
        sums += part[1]
    return gradient, sums


def _chunk(
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None,
    log_evidence: Tensor,
    by_preds: Tensor | None,
    by_sigma: Tensor | None,
    pull: Tensor,
    terms: Terms,
) -> tuple[Tensor | None, Tensor]:
    """Return the gradient of a chunk's predictions and the sums over its labels.

    The sums are: labels that count, squared errors, log evidences, their derivatives by sigma, and
    labels that count with an error that is NaN or infinite.
    """
    error = hide(preds - target, mask)
    gradient = None
    if by_preds is not None:
        gradient = hide(torch.addcmul(by_preds * terms.balance_weight, error, pull), mask)
    none = error.new_zeros(())
    sums = [
        none + error.numel() if mask is None else mask.count_nonzero(),
        error.square().sum(),
        hide(log_evidence, mask).sum(),
        none if by_sigma is None else hide(by_sigma, mask).sum(),
        error.isfinite().logical_not().count_nonzero() if terms.count_bad else none,
    ]
    return gradient, torch.stack([part.double() for part in sums])


def _chunk_of_compiler(*arguments: Any) -> tuple[Tensor | None, Tensor]:
    require_compiling()
    return _chunk(*arguments)


_compiled_terms = CompiledFunction(_chunk_of_compiler, "the balanced loss")
