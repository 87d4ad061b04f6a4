"""The evidence as an operation of autograd: exact, block by block, and what is asked of it.

    log E(p) = log of the integral of f(y - p; sigma) p_train(y) dy

Its derivatives are soft-max moments, so the forward pass computes them and the backward pass is a
multiplication: memory is O(predictions), whatever the size of the prior.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from depthbal.losses.reduction import CACHE_LABELS, chunks, compute_dtype, first_order, hide
from depthbal.priors import GaussianMixture

# On a CPU the temporaries of a block of this many float32 stay in the cache; elsewhere a block must
# be large enough to hide the launches, and its 10 temporaries take 256 MiB.
CACHE_NUMBERS, DEVICE_NUMBERS = 2**17, 6 * 2**20


class Wanted(NamedTuple):
    """The derivatives that somebody needs; the others are neither computed nor allocated."""

    by_preds: bool = True
    by_sigma: bool = True


class Evidence(NamedTuple):
    """Log evidence (n,) and its derivatives by prediction, (n,) or (n, D), and by sigma, (n,)."""

    value: Tensor
    by_preds: Tensor | None
    by_sigma: Tensor | None


class Components(NamedTuple):
    """A mixture as the sums want it; ``axes`` are None where they are the coordinates."""

    log_weights: Tensor  # (K,)
    means: Tensor  # (K,) or (K, D)
    variances: Tensor  # of that shape, along the axes
    axes: Tensor | None = None  # (K, D, D), in columns

    @classmethod
    def of(cls, prior: GaussianMixture, device: torch.device) -> Self:
        """Return a mixture in float64."""
        parts = (prior.weights.log(), prior.means, *prior.spectrum)
        return cls(*parts).to(torch.empty(0, dtype=torch.float64, device=device))

    def to(self, preds: Tensor) -> Self:
        """Return the mixture in the type and on the device of ``preds``."""
        return type(self)(*(part if part is None else part.to(preds) for part in self))  # type: ignore[arg-type]

    def blocks(self, size: int) -> Iterator["Components"]:
        """Return the mixture in parts of at most ``size`` components."""
        for start in range(0, self.log_weights.numel(), size):
            rows = slice(start, start + size)
            yield Components(*(part if part is None else part[rows] for part in self))  # type: ignore[arg-type]


Block = Callable[[Tensor, Tensor, Components, Wanted], Evidence]
SigmaOf = Callable[[Tensor], Tensor]
Prepared = Callable[[Tensor], Evidence]


def exact_evidence(
    preds: Tensor,
    sigma: Tensor,
    mixture: Components,
    wanted: Wanted = Wanted(),  # noqa: B008  # it cannot be changed
    block: Block | None = None,
) -> Evidence:
    """Return log sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I) and its derivatives.

    preds is (n,) for scalar labels, (n, D) for vectors; sigma () or (n,); the mixture of their type
    and device; ``block`` computes a part of it, for another noise density than the normal.
    """
    block = block or gaussian
    value = preds.new_empty(preds.shape[0])
    by_preds = torch.empty_like(preds) if wanted.by_preds else None
    by_sigma = torch.empty_like(value) if wanted.by_sigma else None
    result = Evidence(value, by_preds, by_sigma)
    rows, columns = _block_shape(preds, mixture)
    for start in range(0, preds.shape[0], rows):
        chunk = slice(start, start + rows)
        noise = sigma if sigma.ndim == 0 else sigma[chunk]
        parts = [block(preds[chunk], noise, part, wanted) for part in mixture.blocks(columns)]
        evidence = functools.reduce(_merge, parts)
        for whole, found in zip(result, evidence, strict=True):
            if whole is not None and found is not None:
                whole[chunk] = found
    return result


def _block_shape(preds: Tensor, mixture: Components) -> tuple[int, int]:
    """Return how many predictions and components fit into one block."""
    numbers = CACHE_NUMBERS if preds.device.type == "cpu" else DEVICE_NUMBERS
    numbers = max(1, numbers * 4 // preds.element_size())
    components = mixture.log_weights.numel()
    dimension = max(1, mixture.means.numel() // max(1, components))
    rows = max(1, numbers // max(1, components * dimension))
    return rows, max(1, min(components, numbers // dimension))


def gaussian(preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted) -> Evidence:
    """Return the evidence of one block of predictions under normal noise."""
    if preds.ndim == 2:
        return _vectors(preds, sigma, mixture, wanted)
    total = mixture.variances + (sigma**2)[..., None]
    precision = 1 / total
    distance = mixture.means - preds[:, None]
    pull = distance * precision
    log_scale = mixture.log_weights - 0.5 * torch.log(2 * math.pi * total)
    shares = Shares(log_scale - 0.5 * distance * pull)
    return Evidence(
        shares.log_sum,
        shares.mean(pull) if wanted.by_preds else None,
        sigma * shares.mean(pull**2 - precision) if wanted.by_sigma else None,
    )


def _vectors(preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted) -> Evidence:
    total = mixture.variances + (sigma**2)[..., None, None]
    precision = 1 / total
    distance = mixture.means - preds[:, None, :]
    if mixture.axes is not None:
        distance = torch.einsum("nkd,kde->nke", distance, mixture.axes)
    pull = distance * precision
    log_scale = mixture.log_weights - 0.5 * torch.log(2 * math.pi * total).sum(-1)
    shares = Shares(log_scale - 0.5 * (distance * pull).sum(-1))
    by_preds = by_sigma = None
    if wanted.by_sigma:
        by_sigma = sigma * shares.mean((pull**2 - precision).sum(-1))
    if wanted.by_preds:
        if mixture.axes is not None:
            pull = torch.einsum("nke,kde->nkd", pull, mixture.axes)
        by_preds = shares.mean(pull)
    return Evidence(shares.log_sum, by_preds, by_sigma)


class Shares:
    """The logarithm of a sum over components, and means weighted by the components' shares.

    Where all terms are exp(-inf), in a block without weight, the means are 0 and not NaN.
    """

    def __init__(self, log_terms: Tensor) -> None:
        limits = torch.finfo(log_terms.dtype)
        top = log_terms.amax(1).clamp(min=limits.min)
        self._terms = torch.exp(log_terms - top[:, None])
        total = self._terms.sum(1)
        self.log_sum = top + total.log()
        self._total = total.clamp(min=limits.tiny)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values (n, K) or (n, K, D) over the components."""
        if values.ndim == 2:
            return (self._terms * values).sum(1) / self._total
        return (self._terms[..., None] * values).sum(1) / self._total[:, None]


def _merge(one: Evidence, other: Evidence) -> Evidence:
    """Return the evidence of two parts of a mixture together: derivatives weigh as the sums do."""
    shares = Shares(torch.stack([one.value, other.value], dim=1))
    derivatives = (
        None if a is None or b is None else shares.mean(torch.stack([a, b], 1))
        for a, b in zip(one[1:], other[1:], strict=True)
    )
    return Evidence(shares.log_sum, *derivatives)


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
