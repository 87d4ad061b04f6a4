"""The evidence of Balanced MSE: the one kernel that all its variants share.

    log E(p) = log sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I)

is the logarithm of the integral of N(y; p, sigma^2 I) p_train(y) over y for a training distribution
that is a mixture (Ren et al., CVPR 2022, Theorem 1). Its derivatives are soft-max moments, so the
forward pass computes them and the backward pass is a multiplication: memory is O(predictions),
whatever the number of components.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from depthbal.losses.kernel import tables
from depthbal.losses.kernel.exact import Block, Components, Evidence, Wanted, exact_evidence
from depthbal.losses.reduction import CACHE_LABELS, chunks, compute_dtype, first_order, hide
from depthbal.priors import GaussianMixture

SigmaOf = Callable[[Tensor], Tensor]
Prepared = Callable[[Tensor], Evidence]
Prepare = Callable[..., Prepared]

# Below this number of pairs (prediction, component) the exact sum is faster than anything prepared.
TABULATE_PAIRS = 2**20
# Building a table reads its range back. A GPU must not wait for that in every step, except where
# the sum itself takes longer than the wait.
DEVICE_TABLE_PAIRS = 2**28


class Request(NamedTuple):
    """What is asked of the evidence besides predictions, noise scale and prior."""

    wanted: Wanted = Wanted()
    sigma_of: SigmaOf | None = None
    tolerance: float = 1e-5
    budget_mb: float = 256


def log_evidence(
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    *,
    sigma_of: SigmaOf | None = None,
    tolerance: float = 1e-5,
    memory_budget_mb: float = 256,
) -> Tensor:
    """Return log of sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I), one value per label.

    float64 predictions always get the exact sum. In float32, where scalar predictions are many, the
    sum is tabulated over their range and interpolated, if the table agrees with the exact sum
    within ``tolerance`` half-way between its nodes. A GPU, which must not wait for a table's range,
    tabulates larger sums only. Half precision is computed in float32. Gradients flow to ``preds``
    and ``noise_sigma``, never to the prior.

    Args:
        preds: Predicted labels in label units, any shape for a scalar mixture, (..., D) for one of
            dimension D.
        prior: p_train(y) as a mixture; point masses (variance 0) are allowed.
        noise_sigma: Noise scale sigma > 0 in label units: one number, or one per label.
        sigma_of: Where sigma is a function of the prediction, that function; with it many
            predictions can be tabulated although sigma differs between them.
        tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma in float32.
        memory_budget_mb: Ceiling on the temporaries in MiB; results do not depend on it.

    Returns:
        Log evidence per label in float32 or float64: the shape of ``preds``, without the last axis
        for vectors.

    Raises:
        ValueError: ``noise_sigma`` of another shape or not positive, a budget that is not positive,
            or vectors of another dimension than the prior's.

    Source: Ren et al., Balanced MSE for Imbalanced Visual Regression, CVPR 2022, Theorem 1.

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])
        >>> log_evidence(torch.zeros(2), prior, 1.0)  # log N(0; 2, 4)
        tensor([-2.1121, -2.1121])
    """
    request = Request(sigma_of=sigma_of, tolerance=tolerance, budget_mb=memory_budget_mb)
    return stored_evidence(prepare, preds, prior, noise_sigma, request)


def stored_evidence(
    prepare: Prepare,
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    request: Request,
) -> Tensor:
    """Return the evidence that ``prepare`` of a noise family gives, with stored derivatives."""
    if not request.budget_mb > 0:
        raise ValueError(f"expected a positive memory_budget_mb, got {request.budget_mb}")
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


def prepare(
    preds: Tensor,
    sigma: Tensor,
    prior: GaussianMixture,
    request: Request,
    mask: Tensor | None = None,
) -> Prepared:
    """Return the function that gives the evidence of these predictions, in the type of sigma.

    Where there is one noise scale it also takes any part of them. preds are (n,), for vectors
    (n, D), of any floating type; sigma is () or (n,), float32 or float64. Of scalar predictions
    only those in the mask (n,) count, though all are returned.
    """
    require_positive(sigma)
    mixture = Components.of(prior, preds.device)
    pairs = preds.shape[0] * mixture.log_weights.numel()
    many = pairs >= (TABULATE_PAIRS if preds.device.type == "cpu" else DEVICE_TABLE_PAIRS)
    smooth = sigma.ndim == 0 or request.sigma_of is not None
    if many and smooth and preds.ndim == 1 and sigma.dtype == torch.float32:
        width = (mixture.variances.min() + sigma.min().double() ** 2).sqrt()
        inside = mixture.log_weights.exp() @ mixture.means
        ends = extent(preds, mask, sigma, inside)
        low, high, smoothness = torch.cat([ends, width[None]]).tolist()
        exact, errors = curves_of(sigma, mixture, request), table_errors(sigma, request)
        table = tables.build(exact, low, high, smoothness, preds.numel() // 4, errors)
        if table is not None:
            return by_table(table, request)
    rounded, (wanted, _, _, budget_mb) = mixture.to(sigma), request
    return lambda part: exact_evidence(part, sigma, rounded, wanted, budget_mb)


def curves_of(
    sigma: Tensor, mixture: Components, request: Request, block: Block | None = None
) -> tables.Function:
    """Return the exact curves that are wanted, (curves, n), as a function of float64 nodes."""

    def exact(nodes: Tensor) -> Tensor:
        noise = sigma.double() if request.sigma_of is None else request.sigma_of(nodes).double()
        curves = exact_evidence(nodes, noise, mixture, request.wanted, request.budget_mb, block)
        return torch.stack([curve for curve in curves if curve is not None])

    return exact


def by_table(table: tables.Table | tables.PiecewiseTable, request: Request) -> Prepared:
    """Return the function that reads the evidence from a table of the curves that are wanted."""
    wanted = request.wanted

    def evidence(part: Tensor) -> Evidence:
        value, *rest = tables.interpolate(table, part, request.budget_mb)
        by_preds = rest.pop(0) if wanted.by_preds else None
        return Evidence(value, by_preds, rest.pop(0) if wanted.by_sigma else None)

    return evidence


def table_errors(sigma: Tensor, request: Request) -> Tensor:
    """Return the errors that each curve may have, (curves, 1).

    Times the largest sigma, the derivatives are pure numbers like the logarithm itself.
    """
    largest = sigma.max().double()
    sizes = torch.stack([torch.ones_like(largest)] + [largest] * sum(request.wanted))
    return request.tolerance / sizes[:, None]


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
