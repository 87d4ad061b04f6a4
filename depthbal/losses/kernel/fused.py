"""The balanced loss of many scalar labels as one sum with one stored gradient.

    sum over valid i of a e(p_i - y_i; s) + b [log E(p_i) + log Z(s)]

for one noise scale s and noise of density exp(-e) / Z. Labels are taken chunk by chunk: the sum and
its derivative by s are numbers, so that all that survives a chunk is the gradient of its
predictions. The backward pass multiplies that by a number, and the whole holds as much memory as
plain MSE.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from depthbal.losses.family import NoiseFamily
from depthbal.losses.kernel.evidence import Request
from depthbal.losses.reduction import CACHE_LABELS, DEVICE_LABELS, chunks, first_order, hide
from depthbal.priors import GaussianMixture

# Temporaries of a chunk's size that are alive at once, rounded up.
TEMPORARIES = 8


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
    prior: GaussianMixture,
    family: NoiseFamily,
    terms: Terms,
    request: Request,
) -> BalancedSum:
    """Return the sum of the balanced loss, differentiable once by predictions and sigma.

    preds, target and mask are flat (n,) and of any floating type, computed in that of sigma (),
    float32 or float64; what the mask hides may be NaN.
    """
    parts = _BalancedSum.apply(preds, sigma, target, mask, prior, family, terms, request)
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
        prior: GaussianMixture,
        family: NoiseFamily,
        terms: Terms,
        request: Request,
    ) -> tuple[Tensor, ...]:
        wanted = request.wanted
        evidence_of = family.prepare(preds, sigma, prior, request, mask)
        dtype, device = sigma.dtype, preds.device
        gradient = torch.empty_like(preds, dtype=dtype) if wanted.by_preds else None
        sums = torch.zeros(6, dtype=torch.float64, device=device)
        rows = min(
            CACHE_LABELS if device.type == "cpu" else DEVICE_LABELS,
            int(request.budget_mb * 2**20) // (TEMPORARIES * sigma.element_size()),
        )
        for predicted, true, counts, stored in chunks(max(1, rows), preds, target, mask, gradient):
            predicted = predicted.to(dtype)
            error = hide(predicted - true.to(dtype), counts)
            log_evidence, by_preds, by_sigma = evidence_of(predicted)
            if stored is not None and by_preds is not None:
                if terms.balance_weight != 1:
                    by_preds = terms.balance_weight * by_preds
                pull = family.add_slope(by_preds, error, sigma, terms.mse_weight)
                stored.copy_(hide(pull, counts))
            none = error.new_zeros(())
            parts = [
                none + error.numel() if counts is None else counts.count_nonzero(),
                family.energy_sum(error, sigma),
                hide(log_evidence, counts).sum(),
                none if by_sigma is None else hide(by_sigma, counts).sum(),
                none if by_sigma is None or family.degree else family.by_sigma(error, sigma).sum(),
                error.isfinite().logical_not().count_nonzero() if terms.count_bad else none,
            ]
            sums += torch.stack([part.double() for part in parts])
        counted, energies, log_evidences, by_sigma, of_data, bad = sums.unbind()
        scale = sigma.double()
        balance = log_evidences + counted * family.log_normaliser(scale)
        total = terms.mse_weight * energies + terms.balance_weight * balance
        of_data = of_data if family.degree is None else -family.degree * energies / scale
        by_sigma = by_sigma + counted * family.normaliser_by_sigma(scale)
        by_sigma = terms.mse_weight * of_data + terms.balance_weight * by_sigma
        ctx.save_for_backward(gradient, by_sigma if wanted.by_sigma else None)
        ctx.mark_non_differentiable(counted, bad)
        return total, counted, bad

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, by_sigma = ctx.saved_tensors
        by_preds = None if gradient is None else gradient * grad.to(gradient.dtype)
        return by_preds, None if by_sigma is None else by_sigma * grad, *(None,) * 6
