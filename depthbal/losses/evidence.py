"""The evidence of Balanced MSE: the exact sum, block by block, and its place in autograd.

    log Z(sigma) E(p) = log of the integral of exp(-energy(y - p; sigma)) p_train(y) dy

Without the normaliser Z of the noise, which the data term has too, no digit of a large sigma is
lost. The derivatives are soft-max moments, so the forward pass computes them and the backward pass
is a multiplication: memory is O(predictions), whatever the size of the prior.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.reduction import CACHE_LABELS, chunks, first_order, hide
from depthbal.priors import GaussianMixture

# On a CPU the temporaries of a block of this many float32 stay in the cache; elsewhere a block must
# be large enough to hide the launches, and its 10 temporaries take 256 MiB.
CACHE_NUMBERS, DEVICE_NUMBERS = 2**17, 6 * 2**20


class Wanted(NamedTuple):
    """The derivatives that somebody needs; the others are neither computed nor allocated."""

    by_preds: bool = True
    by_sigma: bool = True


class Evidence(NamedTuple):
    """log Z E (n,) and its derivatives by prediction, (n,) or (n, D), and by sigma, (n,)."""

    value: Tensor
    by_preds: Tensor | None
    by_sigma: Tensor | None


class Components(NamedTuple):
    """A mixture as the sums want it; ``axes`` are None where they are the coordinates."""

    log_weights: Tensor  # (K,)
    means: Tensor  # (K,) or (K, D)
    variances: Tensor  # of that shape, along the axes, or (K, 1) where all axes are alike
    axes: Tensor | None = None  # (K, D, D), in columns

    @classmethod
    def of(cls, prior: GaussianMixture, device: torch.device) -> Self:
        """Return a mixture in float64."""
        parts = (prior.weights.log(), prior.means, *prior.spectrum)
        return cls(*parts).to(torch.empty(0, dtype=torch.float64, device=device))

    def with_mass(self, place: float) -> Self:
        """Return a scalar mixture with a point of no weight, where cells of tables end."""
        added = zip(self[:3], (-math.inf, place, 0.0), strict=True)
        return type(self)(*(functional.pad(part, (0, 1), value=value) for part, value in added))

    def to(self, preds: Tensor) -> Self:
        """Return the mixture in the type and on the device of ``preds``."""
        return type(self)(*(part if part is None else part.to(preds) for part in self))  # type: ignore[arg-type]


class Tail(NamedTuple):
    """Labels that are only known to lie beyond an end: an even density from there on."""

    end: float
    log_density: Tensor  # per label unit, relative to the mass of the mixture; ()


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
    """Return log Z E of preds (n,) or (n, D) and sigma () or (n,), by a noise family's block."""
    value = preds.new_empty(preds.shape[0])
    by_preds = torch.empty_like(preds) if wanted.by_preds else None
    result = Evidence(value, by_preds, torch.empty_like(value) if wanted.by_sigma else None)
    numbers = CACHE_NUMBERS if preds.device.type == "cpu" else DEVICE_NUMBERS
    rows = numbers * 4 // (preds.element_size() * max(1, mixture.variances.numel()))
    for chunk, noise, *parts in chunks(max(1, rows), preds, sigma if sigma.ndim else None, *result):
        noise = sigma if noise is None else noise
        found = (block or gaussian)(chunk, noise, mixture, wanted)
        for whole, part in zip(parts, found, strict=True):
            if whole is not None and part is not None:
                whole.copy_(part)
    return result


def gaussian(preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted) -> Evidence:
    """Return log Z E of one block of predictions under normal noise."""
    if preds.ndim == 2:
        alike = mixture.variances.shape[1] < preds.shape[1]
        return (_alike if alike else _vectors)(preds, sigma, mixture, wanted)
    noise = (sigma**2)[..., None]
    precision = 1 / (mixture.variances + noise)
    distance = mixture.means - preds[:, None]
    pull = distance * precision
    log_scale = mixture.log_weights - 0.5 * torch.log1p(mixture.variances / noise)
    shares = Shares(log_scale - 0.5 * distance * pull)
    spread = precision * mixture.variances / noise
    return Evidence(
        shares.log_sum,
        shares.mean(pull) if wanted.by_preds else None,
        sigma * shares.mean(pull**2 + spread) if wanted.by_sigma else None,
    )


def _vectors(preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted) -> Evidence:
    noise = (sigma**2)[..., None, None]
    precision = 1 / (mixture.variances + noise)
    distance = mixture.means - preds[:, None, :]
    if mixture.axes is not None:
        distance = torch.einsum("nkd,kde->nke", distance, mixture.axes)
    pull = distance * precision
    log_scale = mixture.log_weights - 0.5 * torch.log1p(mixture.variances / noise).sum(-1)
    shares = Shares(log_scale - 0.5 * (distance * pull).sum(-1))
    by_preds = by_sigma = None
    if wanted.by_sigma:
        spread = precision * mixture.variances / noise
        by_sigma = sigma * shares.mean((pull**2 + spread).sum(-1))
    if wanted.by_preds:
        if mixture.axes is not None:
            pull = torch.einsum("nke,kde->nkd", pull, mixture.axes)
        by_preds = shares.mean(pull)
    return Evidence(shares.log_sum, by_preds, by_sigma)


def _alike(preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted) -> Evidence:
    """Return that of components with one variance each by products of matrices, not (n, K, D)."""
    size, centre = preds.shape[1], mixture.means.double().mean(0)
    points, means = preds.double() - centre, mixture.means.double() - centre
    noise, variances = (sigma.double() ** 2)[..., None], mixture.variances[:, 0].double()
    precision = 1 / (variances + noise)
    squares = points.square().sum(1, keepdim=True) + means.square().sum(1)
    squares = torch.addmm(squares, points, means.T, alpha=-2).clamp_(min=0)
    log_scale = mixture.log_weights - 0.5 * size * torch.log1p(variances / noise)
    shares = Shares(log_scale - 0.5 * squares * precision)
    by_preds = by_sigma = None
    if wanted.by_preds:
        pulls = shares.terms * precision
        by_preds = (pulls @ means - pulls.sum(1, keepdim=True) * points) / shares.total[:, None]
    if wanted.by_sigma:
        spread = size * precision * variances / noise
        by_sigma = sigma * shares.mean(squares * precision**2 + spread)
    return Evidence(shares.log_sum, by_preds, by_sigma)


class Shares:
    """The logarithm of a sum over components, and means weighted by the components' shares."""

    def __init__(self, log_terms: Tensor) -> None:
        top = log_terms.amax(1)
        self.terms = torch.exp(log_terms - top[:, None])
        self.total = self.terms.sum(1)
        self.log_sum = top + self.total.log()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values (n, K) or (n, K, D) over the components."""
        if values.ndim == 2:
            return (self.terms * values).sum(1) / self.total
        return (self.terms[..., None] * values).sum(1) / self.total[:, None]


def with_tail(found: Evidence, preds: Tensor, sigma: Tensor, tail: Tail) -> Evidence:
    """Return log Z (E + r Phi(z)), z = (p - end) / sigma, under normal noise, from log Z E."""
    z = (preds - tail.end) / sigma
    log_scale = sigma.log() + 0.5 * math.log(2 * math.pi) + tail.log_density.to(sigma)
    log_tail = torch.special.log_ndtr(z) + log_scale
    value = torch.logaddexp(found.value, log_tail)
    share = (log_tail - value).exp()
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(z * -math.sqrt(0.5))  # phi / Phi
    by_preds, by_sigma = found.by_preds, found.by_sigma
    if by_preds is not None:
        by_preds = torch.lerp(by_preds, hazard / sigma, share)
    if by_sigma is not None:
        by_sigma = torch.lerp(by_sigma, (1 - z * hazard) / sigma, share)
    return Evidence(value, by_preds, by_sigma)


def wanted_derivatives(preds: Tensor, sigma: Tensor) -> Wanted:
    """Return which derivatives are being recorded."""
    recording = torch.is_grad_enabled()
    return Wanted(recording and preds.requires_grad, recording and sigma.requires_grad)


def extent(preds: Tensor, mask: Tensor | None, sigma: Tensor, inside: Tensor) -> Tensor:
    """Return ends (2,) of a range that holds the predictions that count, and ``inside`` if any."""
    if mask is None:
        return torch.stack(preds.aminmax()).double()
    inside = inside.to(sigma)
    ends = [
        torch.stack(hide(part.to(sigma.dtype) - inside, counts).aminmax())
        for part, counts in chunks(CACHE_LABELS, preds, mask)
    ]
    low, high = (inside + torch.stack(ends)).double().unbind(1)
    return torch.stack([low.min(), high.max()])


class Precomputed(torch.autograd.Function):
    """Forward stores the derivatives that will be needed; backward multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, preds: Tensor, sigma: Tensor, compute: Callable[[Tensor, Tensor], Evidence]
    ) -> Tensor:
        """Return the value."""
        evidence = compute(preds, sigma)
        ctx.save_for_backward(evidence.by_preds, evidence.by_sigma)
        ctx.one_sigma = sigma.ndim == 0
        return evidence.value

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Multiply what is stored."""
        by_preds, by_sigma = ctx.saved_tensors
        if by_preds is not None:
            by_preds = by_preds * (grad if by_preds.ndim == 1 else grad[:, None])
        if by_sigma is not None:
            by_sigma = grad * by_sigma
            if ctx.one_sigma:
                by_sigma = by_sigma.sum(dtype=torch.float64).to(grad.dtype)
        return by_preds, by_sigma, None
