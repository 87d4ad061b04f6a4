"""The evidence of Balanced MSE: the one kernel that all its variants share.

    log E(p) = log sum_k w_k N(p; mu_k, v_k + sigma^2)

is the logarithm of the integral of N(y; p, sigma^2) p_train(y) over y for a training distribution
that is a mixture (Ren et al., CVPR 2022, Theorem 1). Its derivatives are soft-max
moments, so the forward pass computes them and the backward pass is a multiplication: memory is
O(predictions), whatever the number of components.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from depthbal.losses import tabulated
from depthbal.priors import GaussianMixture

# Pairs (prediction, component) worked on at once. On a CPU a few temporaries of this size stay in
# the cache; on a GPU a chunk must be large enough to hide the launches.
CHUNK_PAIRS = {"cpu": 2**17}
CHUNK_PAIRS_DEVICE = 2**24
# Below this number of pairs the exact sum is faster than building a table.
TABULATE_PAIRS = 2**20


class Evidence(NamedTuple):
    """Value and derivatives of log E, each of the predictions' shape."""

    value: Tensor
    by_preds: Tensor
    by_sigma: Tensor


def log_evidence(
    preds: Tensor, prior: GaussianMixture, noise_sigma: Tensor | float, *, tolerance: float = 1e-5
) -> Tensor:
    """Return log of sum_k w_k N(p; mu_k, v_k + sigma^2), elementwise.

    float64 predictions always get the exact sum. In float32, where predictions are many, the sum
    is tabulated over their range and interpolated, if the table agrees with the exact sum within
    ``tolerance`` half-way between its nodes; otherwise the exact sum serves. Half precision is
    computed in float32. Gradients flow to ``preds`` and ``noise_sigma``, never to the prior.

    Args:
        preds: Predicted labels, any shape, label units.
        prior: p_train(y) as a mixture; point masses (variance 0) are allowed.
        noise_sigma: Noise scale sigma > 0 in label units: a number or a tensor with one element.
        tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma in float32.

    Returns:
        Log evidence of the shape of ``preds``, float32 or float64.

    Raises:
        ValueError: ``noise_sigma`` with more than one element, or not positive.

    Source: Ren et al., Balanced MSE for Imbalanced Visual Regression, CVPR 2022, Theorem 1.

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])
        >>> log_evidence(torch.zeros(2), prior, 1.0)  # log N(0; 2, 4)
        tensor([-2.1121, -2.1121])
    """
    preds = preds.to(compute_dtype(preds))
    sigma = torch.as_tensor(noise_sigma, dtype=preds.dtype, device=preds.device)
    if sigma.numel() != 1:
        raise ValueError(f"expected noise_sigma with one element, got shape {tuple(sigma.shape)}")
    if not isinstance(noise_sigma, Tensor) and not sigma > 0:
        raise ValueError(f"expected a positive noise_sigma, got {noise_sigma}")
    parts = (prior.weights.log(), prior.means, prior.variances)
    log_weights, means, variances = (part.to(preds.device, torch.float64) for part in parts)
    value: Tensor = _LogEvidence.apply(
        preds, sigma.reshape(()), log_weights, means, variances, tolerance
    )
    return value


def compute_dtype(preds: Tensor) -> torch.dtype:
    """Return float64 for float64 predictions and float32 for everything narrower."""
    return torch.float64 if preds.dtype == torch.float64 else torch.float32


class _LogEvidence(torch.autograd.Function):
    """Forward stores the derivatives that will be needed; backward multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        preds: Tensor,
        sigma: Tensor,
        log_weights: Tensor,
        means: Tensor,
        variances: Tensor,
        tolerance: float,
    ) -> Tensor:
        evidence = _evaluate(preds.flatten(), sigma, log_weights, means, variances, tolerance)
        wanted = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            evidence.by_preds if wanted[0] else None, evidence.by_sigma if wanted[1] else None
        )
        return evidence.value.view_as(preds)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_preds, by_sigma = ctx.saved_tensors
        grad_preds = None if by_preds is None else grad * by_preds.view_as(grad)
        grad_sigma = None
        if by_sigma is not None:
            grad_sigma = (grad.flatten() * by_sigma).sum(dtype=torch.float64).to(by_sigma.dtype)
        return grad_preds, grad_sigma, None, None, None, None


def _evaluate(
    preds: Tensor,
    sigma: Tensor,
    log_weights: Tensor,
    means: Tensor,
    variances: Tensor,
    tolerance: float,
) -> Evidence:
    """Choose between the table and the exact sum for flat predictions."""
    if preds.dtype == torch.float32 and preds.numel() * means.numel() >= TABULATE_PAIRS:
        noise = sigma.double()

        def exact(nodes: Tensor) -> Tensor:
            return torch.stack(exact_evidence(nodes, noise, log_weights, means, variances))

        smoothness = (variances.min() + noise**2).sqrt()
        low, high, width = torch.stack([*preds.detach().aminmax(), smoothness]).tolist()
        errors = tolerance / torch.stack([torch.ones_like(noise), noise, noise])[:, None]
        table = tabulated.build(exact, low, high, width, preds.numel() // 4, errors)
        if table is not None:
            return Evidence(*tabulated.interpolate(table, preds))
    parts = (part.to(preds.dtype) for part in (log_weights, means, variances))
    return exact_evidence(preds, sigma, *parts)


def exact_evidence(
    preds: Tensor, sigma: Tensor, log_weights: Tensor, means: Tensor, variances: Tensor
) -> Evidence:
    """Return the exact sum and its derivatives for flat predictions, chunk by chunk."""
    total_variance = variances + sigma**2
    log_scale = log_weights - 0.5 * torch.log(2 * math.pi * total_variance)
    precision = 1 / total_variance
    value, by_preds, by_sigma = (torch.empty_like(preds) for _ in range(3))
    pairs = CHUNK_PAIRS.get(preds.device.type, CHUNK_PAIRS_DEVICE)
    step = max(1, pairs // max(1, means.numel()))
    for start in range(0, preds.numel(), step):
        chunk = slice(start, start + step)
        distance = means - preds[chunk, None]
        pull = distance * precision
        log_terms = log_scale - 0.5 * distance * pull
        log_sum = torch.logsumexp(log_terms, dim=1)
        posterior = torch.exp(log_terms - log_sum[:, None])
        value[chunk] = log_sum
        by_preds[chunk] = (posterior * pull).sum(1)
        by_sigma[chunk] = sigma * (posterior * (pull**2 - precision)).sum(1)
    return Evidence(value, by_preds, by_sigma)
