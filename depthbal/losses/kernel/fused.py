"""The balanced loss of many scalar labels as one sum with one stored gradient.

    sum over valid i of a e(p_i - y_i; s) + b [log E(p_i) + log Z(s)]

for one noise scale s and noise of density exp(-e) / Z. Labels are taken chunk by chunk: the sum and
its derivative by s are numbers, so that all that survives a chunk is the gradient of its
predictions. The backward pass multiplies that by a number, and the whole holds as much memory as
plain MSE.
"""

from typing import Any

import torch
from torch import Tensor

from depthbal.losses.family import NoiseFamily
from depthbal.losses.kernel.evidence import Request
from depthbal.losses.reduction import CACHE_LABELS, DEVICE_LABELS, chunks, first_order, hide
from depthbal.priors import GaussianMixture


def balanced_sum(
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None,
    sigma: Tensor,
    prior: GaussianMixture,
    family: NoiseFamily,
    request: Request,
    *,
    weights: tuple[float, float] = (1.0, 1.0),
    count_bad: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the balanced loss, differentiable once by predictions and sigma.

    preds, target and mask are flat (n,) and of any floating type, computed in that of sigma (),
    float32 or float64; what the mask hides may be NaN. ``weights`` are a and b. Returned with the
    sum, all in float64: how many labels count, and how many of these are NaN or infinite, 0 where
    they are not to be counted.
    """
    total, counted, bad = _BalancedSum.apply(
        preds, sigma, target, mask, prior, family, request, weights, count_bad
    )
    return total, counted, bad


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
        request: Request,
        weights: tuple[float, float],
        count_bad: bool,
    ) -> tuple[Tensor, ...]:
        wanted, (data_weight, balance_weight) = request.wanted, weights
        evidence_of = family.prepare(preds, sigma, prior, request, mask)
        dtype, device = sigma.dtype, preds.device
        gradient = torch.empty_like(preds, dtype=dtype) if wanted.by_preds else None
        sums = torch.zeros(6, dtype=torch.float64, device=device)
        rows = CACHE_LABELS if device.type == "cpu" else DEVICE_LABELS
        for predicted, true, counts, stored in chunks(rows, preds, target, mask, gradient):
            predicted = predicted.to(dtype)
            error = hide(predicted - true.to(dtype), counts)
            log_evidence, by_preds, by_sigma = evidence_of(predicted)
            if stored is not None and by_preds is not None:
                if balance_weight != 1:
                    by_preds = balance_weight * by_preds
                stored.copy_(hide(family.add_slope(by_preds, error, sigma, data_weight), counts))
            none = error.new_zeros(())
            parts = [
                none + error.numel() if counts is None else counts.count_nonzero(),
                family.energy_sum(error, sigma),
                hide(log_evidence, counts).sum(),
                none if by_sigma is None else hide(by_sigma, counts).sum(),
                none if by_sigma is None or family.degree else family.by_sigma(error, sigma).sum(),
                error.isfinite().logical_not().count_nonzero() if count_bad else none,
            ]
            sums += torch.stack([part.double() for part in parts])
        counted, energies, log_evidences, by_sigma, of_data, bad = sums.unbind()
        scale = sigma.double()
        balance = log_evidences + counted * family.log_normaliser(scale)
        total = data_weight * energies + balance_weight * balance
        of_data = of_data if family.degree is None else -family.degree * energies / scale
        by_sigma = by_sigma + counted * family.normaliser_by_sigma(scale)
        by_sigma = data_weight * of_data + balance_weight * by_sigma
        ctx.save_for_backward(gradient, by_sigma if wanted.by_sigma else None)
        ctx.mark_non_differentiable(counted, bad)
        return total, counted, bad

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, by_sigma = ctx.saved_tensors
        by_preds = None if gradient is None else gradient * grad.to(gradient.dtype)
        return by_preds, None if by_sigma is None else by_sigma * grad, *(None,) * 7
