"""PointEvidence over point masses for noise that is not Gaussian, with stored derivatives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from depthbal.losses.families import piecewise
from depthbal.losses.kernel.evaluate import TABULATE_PAIRS, SigmaOf
from depthbal.losses.kernel.evidence import chain_rule, compute_dtype, flat_sigma
from depthbal.losses.kernel.first_order import first_order
from depthbal.priors import GaussianMixture

# Temporaries of a chunk that live at the same time, and how large they may be together on a CPU,
# where they should stay in the cache.
TEMPORARIES = 8
CACHE_MB = 4.0
# A table must have this many times fewer cells than there are predictions.
PREDS_PER_CELL = 32


class PointMasses(NamedTuple):
    """Weights (K,) and increasing locations (K,), float64."""

    weights: Tensor
    locations: Tensor


class PointEvidence(NamedTuple):
    """Log evidence and its derivatives by prediction and by noise scale, (n,) each."""

    value: Tensor
    by_preds: Tensor
    by_sigma: Tensor


Exact = Callable[[Tensor, Tensor, PointMasses], PointEvidence]


def point_masses(prior: GaussianMixture, device: torch.device) -> PointMasses:
    """Return the masses of a prior without spread, sorted, in float64.

    Raises:
        ValueError: A prior of vectors, or one whose components have a variance. (The latter only on
            a CPU, for reading it would stall another device; there the masses become NaN.)

    Example:
        >>> prior = GaussianMixture([0.4, 0.6], [3.0, 1.0], [0.0, 0.0])
        >>> point_masses(prior, torch.device("cpu")).locations
        tensor([1., 3.], dtype=torch.float64)
    """
    if prior.event_dim:
        raise ValueError(
            "expected a prior of scalar labels for this noise family, got vectors of dimension "
            f"{prior.means.shape[1]}; only the gaussian family balances vectors"
        )
    weights, means, variances = (
        part.to(device=device, dtype=torch.float64)
        for part in (prior.weights, prior.means, prior.variances)
    )
    if device.type == "cpu" and bool((variances > 0).any()):
        raise ValueError(
            "expected a prior of point masses (variance 0) for this noise family, got components "
            "with a variance; use family='gaussian', or histogram bins (BNI) instead of a mixture "
            "(GAI)"
        )
    weights = torch.where(variances > 0, torch.nan, weights)
    # An empty mass counts nowhere; on top of the heaviest one it cannot make a sum underflow.
    means = torch.where(weights > 0, means, means[weights.argmax()])
    locations, order = means.sort()
    return PointMasses(weights[order], locations)


def without_spread(prior: GaussianMixture) -> GaussianMixture:
    """Return a scalar mixture whose components are two equal masses each, at mean ± deviation.

    They keep weight, mean and variance, so that for components narrow beside the noise, such as
    bins of the batch's labels, the evidence of any smooth density errs in the third order of the
    width only. Nothing is checked and no tensor is read, so that no device stalls.

    Example:
        >>> bins = GaussianMixture([1.0], [2.0], [0.01])
        >>> without_spread(bins).means
        tensor([1.9000, 2.1000], dtype=torch.float64)
    """
    deviation = prior.variances.sqrt()
    means = torch.cat([prior.means - deviation, prior.means + deviation])
    weights = prior.weights.repeat(2) / 2
    return GaussianMixture.unchecked(weights, means, torch.zeros_like(means))


def evidence_of_points(
    preds: Tensor, noise_sigma: Tensor | float, compute: Callable[[Tensor, Tensor], PointEvidence]
) -> Tensor:
    """Return the value of ``compute`` elementwise, with its derivatives as gradients.

    Args:
        preds: Predicted labels of any shape; half precision is computed in float32.
        noise_sigma: Noise scale > 0, one number or one per label.
        compute: From flat predictions (n,) and a scale () or (n,) to the evidence.

    Raises:
        ValueError: A scale of another shape, or (on a CPU) one that is not positive.
    """
    preds = preds.to(compute_dtype(preds))
    sigma = flat_sigma(noise_sigma, preds, preds.shape)
    if not preds.numel():
        return preds * 0 + sigma * 0
    if sigma.device.type == "cpu" and not bool((sigma > 0).all()):  # elsewhere it would stall
        raise ValueError(f"expected a positive noise_sigma, got {noise_sigma}")
    value: Tensor = _StoredDerivatives.apply(preds.flatten(), sigma, compute)
    return value.view(preds.shape)


def in_chunks(
    exact: Exact,
    preds: Tensor,
    sigma: Tensor,
    masses: PointMasses,
    numbers: int,
    memory_budget_mb: float,
) -> PointEvidence:
    """Evaluate flat predictions chunk by chunk; a prediction needs ``numbers`` numbers at once."""
    budget = min(CACHE_MB, memory_budget_mb) if preds.device.type == "cpu" else memory_budget_mb
    step = max(1, int(budget * 2**20 / (preds.element_size() * TEMPORARIES * max(1, numbers))))
    result = PointEvidence(*(torch.empty_like(preds) for _ in range(3)))
    for start in range(0, preds.numel(), step):
        chunk = slice(start, start + step)
        scale = sigma if sigma.ndim == 0 else sigma[chunk]
        for whole, part in zip(result, exact(preds[chunk], scale, masses), strict=True):
            whole[chunk] = part
    return result


def sum_or_table(
    exact: Exact,
    preds: Tensor,
    sigma: Tensor,
    masses: PointMasses,
    breaks: Tensor,
    *,
    sigma_of: SigmaOf | None,
    tolerance: float,
    memory_budget_mb: float,
) -> PointEvidence:
    """Sum over all masses, or interpolate such sums where that is much less work.

    Many float32 predictions of one scale, or of a scale that is the function ``sigma_of`` of the
    prediction, are interpolated in a table of the float64 sums that keeps to ``tolerance``.

    Args:
        exact: The sums over all masses of a chunk of predictions.
        preds: Flat predictions.
        sigma: Noise scale, () or (n,).
        masses: The point masses.
        breaks: Predictions at which the evidence is not smooth, increasing, float64.
        sigma_of: Noise scale as a function of the prediction.
        tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma.
        memory_budget_mb: Largest size of the temporaries.
    """
    count = len(masses.weights)

    def curves(nodes: Tensor) -> Tensor:
        noise = sigma.double() if sigma_of is None else sigma_of(nodes).double()
        return torch.stack(in_chunks(exact, nodes, noise, masses, count, memory_budget_mb))

    one_curve = sigma.ndim == 0 or sigma_of is not None
    if one_curve and preds.dtype == torch.float32 and preds.numel() * count >= TABULATE_PAIRS:
        largest = sigma.max().double()  # times it, all three curves are pure numbers
        errors = tolerance / torch.stack([torch.ones_like(largest), largest, largest])[:, None]
        low, high = preds.aminmax()
        inside = breaks[(breaks > low) & (breaks < high)]
        edges = torch.cat([low.double()[None], inside, high.double()[None]])
        table = piecewise.build(curves, edges, preds.numel() // PREDS_PER_CELL, errors)
        if table is not None:
            return PointEvidence(*piecewise.interpolate(table, preds))
    masses = PointMasses(*(part.to(preds.dtype) for part in masses))
    return in_chunks(exact, preds, sigma, masses, count, memory_budget_mb)


class _StoredDerivatives(torch.autograd.Function):
    """Forward stores the derivatives that will be needed; backward multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, preds: Tensor, sigma: Tensor, compute: Callable[[Tensor, Tensor], PointEvidence]
    ) -> Tensor:
        evidence = compute(preds, sigma)
        wanted = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            evidence.by_preds if wanted[0] else None, evidence.by_sigma if wanted[1] else None
        )
        ctx.one_sigma = sigma.ndim == 0
        return evidence.value

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_preds, by_sigma = ctx.saved_tensors
        return *chain_rule(grad, by_preds, by_sigma, ctx.one_sigma), None
