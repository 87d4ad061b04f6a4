"""The evidence of Balanced MSE: the one kernel that all its variants share.

    log E(p) = log sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I)

is the logarithm of the integral of N(y; p, sigma^2 I) p_train(y) over y for a training distribution
that is a mixture (Ren et al., CVPR 2022, Theorem 1). Its derivatives are soft-max moments, so the
forward pass computes them and the backward pass is a multiplication: memory is O(predictions),
whatever the number of components.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from depthbal.losses import tabulated
from depthbal.losses.exact import Components, Evidence, exact_evidence
from depthbal.priors import GaussianMixture

# Below this number of pairs (prediction, component) the exact sum is faster than building a table.
TABULATE_PAIRS = 2**20

SigmaOf = Callable[[Tensor], Tensor]


def log_evidence(
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    *,
    sigma_of: SigmaOf | None = None,
    tolerance: float = 1e-5,
) -> Tensor:
    """Return log of sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I), one value per label.

    The prior's dimension says what a label is: for a scalar mixture every entry of ``preds``, for
    a mixture of dimension D the vectors along the last axis.

    float64 predictions always get the exact sum. In float32, where scalar predictions are many, the
    sum is tabulated over their range and interpolated, if the table agrees with the exact sum
    within ``tolerance`` half-way between its nodes; otherwise the exact sum serves. Half precision
    is computed in float32. Gradients flow to ``preds`` and ``noise_sigma``, never to the prior, and
    ``noise_sigma`` is held fixed inside the integral.

    Args:
        preds: Predicted labels in label units, any shape for scalars, (..., D) for vectors.
        prior: p_train(y) as a mixture; point masses (variance 0) are allowed.
        noise_sigma: Noise scale sigma > 0 in label units: one number, or one per label.
        sigma_of: Where sigma is a function of the prediction, that function; with it many
            predictions can be tabulated although sigma differs between them.
        tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma in float32.

    Returns:
        Log evidence per label in float32 or float64: the shape of ``preds``, without the last axis
        for vectors.

    Raises:
        ValueError: ``noise_sigma`` of another shape or not positive, or vectors of another
            dimension than the prior's.

    Source: Ren et al., Balanced MSE for Imbalanced Visual Regression, CVPR 2022, Theorem 1.

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])
        >>> log_evidence(torch.zeros(2), prior, 1.0)  # log N(0; 2, 4)
        tensor([-2.1121, -2.1121])
        >>> plane = GaussianMixture([1.0], [[0.0, 0.0]], [[3.0, 8.0]])
        >>> log_evidence(torch.zeros(5, 2), plane, 1.0).shape
        torch.Size([5])
    """
    preds = preds.to(compute_dtype(preds))
    labels = _labels_shape(preds, prior)
    sigma = torch.as_tensor(noise_sigma, dtype=preds.dtype, device=preds.device)
    if sigma.device.type == "cpu" and not bool((sigma > 0).all()):  # elsewhere it would stall
        raise ValueError(f"expected a positive noise_sigma, got {noise_sigma}")
    if sigma.numel() == 1:
        sigma = sigma.reshape(())
    elif sigma.shape != labels:
        raise ValueError(
            f"expected noise_sigma with one element or of shape {tuple(labels)}, one per label, "
            f"got {tuple(sigma.shape)}"
        )
    flat = preds.reshape(-1, *preds.shape[len(labels) :])
    mixture = components(prior, preds.device)
    value: Tensor = _LogEvidence.apply(
        flat, sigma.flatten() if sigma.ndim else sigma, mixture, sigma_of, tolerance
    )
    return value.view(labels)


def compute_dtype(preds: Tensor) -> torch.dtype:
    """Return float64 for float64 predictions and float32 for everything narrower."""
    return torch.float64 if preds.dtype == torch.float64 else torch.float32


def components(prior: GaussianMixture, device: torch.device) -> Components:
    """Return the mixture for the exact sums, in float64."""
    variances, axes = prior.spectrum
    on_device = torch.empty(0, dtype=torch.float64, device=device)
    return Components(prior.weights.log(), prior.means, variances, axes).to(on_device)


def _labels_shape(preds: Tensor, prior: GaussianMixture) -> torch.Size:
    """Return the shape of ``preds`` without the event axis."""
    if prior.event_dim == 0:
        return preds.shape
    if preds.ndim == 0 or preds.shape[-1] != prior.means.shape[1]:
        raise ValueError(
            f"expected vectors of the prior's dimension {prior.means.shape[1]} on the last axis, "
            f"got preds {tuple(preds.shape)}"
        )
    return preds.shape[:-1]


class _LogEvidence(torch.autograd.Function):
    """Forward stores the derivatives that will be needed; backward multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        preds: Tensor,
        sigma: Tensor,
        mixture: Components,
        sigma_of: SigmaOf | None,
        tolerance: float,
    ) -> Tensor:
        evidence = _evaluate(preds, sigma, mixture, sigma_of, tolerance)
        wanted = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            evidence.by_preds if wanted[0] else None, evidence.by_sigma if wanted[1] else None
        )
        ctx.one_sigma = sigma.ndim == 0
        return evidence.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_preds, by_sigma = ctx.saved_tensors
        if by_preds is not None:
            by_preds = by_preds * (grad if by_preds.ndim == 1 else grad[:, None])
        if by_sigma is not None:
            by_sigma = grad * by_sigma
            if ctx.one_sigma:
                by_sigma = by_sigma.sum(dtype=torch.float64).to(grad.dtype)
        return by_preds, by_sigma, None, None, None


def _evaluate(
    preds: Tensor, sigma: Tensor, mixture: Components, sigma_of: SigmaOf | None, tolerance: float
) -> Evidence:
    """Choose between the table and the exact sum for flat predictions."""
    tabulable = preds.ndim == 1 and (sigma.ndim == 0 or sigma_of is not None)
    pairs = preds.numel() * mixture.means.numel()
    if tabulable and preds.dtype == torch.float32 and pairs >= TABULATE_PAIRS:
        table = _tabulate(preds, sigma, mixture, sigma_of, tolerance)
        if table is not None:
            return Evidence(*tabulated.interpolate(table, preds))
    return exact_evidence(preds, sigma, mixture.to(preds))


def _tabulate(
    preds: Tensor, sigma: Tensor, mixture: Components, sigma_of: SigmaOf | None, tolerance: float
) -> tabulated.Table | None:
    """Return a table of the evidence and its derivatives over the range of ``preds``."""

    def exact(nodes: Tensor) -> Tensor:
        noise = sigma.double() if sigma_of is None else sigma_of(nodes).double()
        return torch.stack(exact_evidence(nodes, noise, mixture))

    smallest = sigma.min().double()
    width = (mixture.variances.min() + smallest**2).sqrt()
    low, high, smoothness = torch.stack([*preds.aminmax(), width]).tolist()
    largest = sigma.max().double()  # times it, all three curves are pure numbers
    errors = tolerance / torch.stack([torch.ones_like(largest), largest, largest])[:, None]
    return tabulated.build(exact, low, high, smoothness, preds.numel() // 4, errors)
