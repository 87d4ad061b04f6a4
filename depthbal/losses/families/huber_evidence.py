"""The evidence of Huber noise over point masses: the balance of the Huber loss.

    log E(p) = log sum_k w_k exp(-h(mu_k - p) / sigma^2) - log Z(sigma)

with Huber's h, r^2 / 2 for |r| <= delta and delta (|r| - delta / 2) beyond.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.families.point_masses import (
    PointEvidence,
    PointMasses,
    evidence_of_points,
    point_masses,
    sum_or_table,
)
from depthbal.losses.kernel.evaluate import SigmaOf
from depthbal.priors import GaussianMixture

# Distances to masses at which pieces of the evidence meet count as one when they are nearer than
# this share of the shorter of sigma and sigma^2 / delta: the slope between them changes by less.
SAME_BREAK = 1e-7


def huber_log_evidence(
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    delta: float,
    *,
    sigma_of: SigmaOf | None = None,
    tolerance: float = 1e-5,
    memory_budget_mb: float = 256,
) -> Tensor:
    """Return log of sum_k w_k exp(-h(mu_k - p) / sigma^2) / Z(sigma), elementwise.

    float64 predictions always get the exact sum over all N x K pairs, chunk by chunk. In float32
    many predictions of one sigma, or of a sigma that is the function ``sigma_of`` of the
    prediction, are interpolated between exact sums, piece by piece: the second derivative of the
    evidence jumps at distance delta from every mass. Gradients flow to ``preds`` and
    ``noise_sigma``.

    Args:
        preds: Predicted labels of any shape, label units.
        prior: p_train(y) as point masses: histogram bins (BNI) or the batch's labels (BMC).
        noise_sigma: Scale sigma > 0 of the noise, label units: one number, or one per label.
        delta: Residual > 0 at which the noise's tails begin, label units.
        sigma_of: Where sigma is a function of the prediction, that function.
        tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma where a table
            serves.
        memory_budget_mb: Largest size of the temporaries.

    Returns:
        Log evidence of the shape of ``preds``, in float32 or float64.

    Raises:
        ValueError: A prior of vectors or with a variance, or a sigma that is not positive or of
            another shape.

    Source: Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) with Huber's density. The paper works
    out Gaussian noise only: this goes beyond it.

    Example:
        >>> prior = GaussianMixture([1.0], [0.0], [0.0])
        >>> huber_log_evidence(torch.tensor([0.0, 9.0]), prior, 1.0, 100.0)  # as good as Gaussian
        tensor([ -0.9189, -41.4189])
    """
    masses = point_masses(prior, preds.device)

    def exact(flat: Tensor, sigma: Tensor, masses: PointMasses) -> PointEvidence:
        return sum_over_masses(flat, sigma, masses, delta)

    def compute(flat: Tensor, sigma: Tensor) -> PointEvidence:
        both = torch.cat([masses.locations - delta, masses.locations + delta]).sort().values
        smallest = sigma.min().double()
        nearest = SAME_BREAK * torch.minimum(smallest, smallest**2 / delta)
        apart = functional.pad(both.diff() > nearest, (1, 0), value=True)
        return sum_or_table(
            exact,
            flat,
            sigma,
            masses,
            both[apart],
            sigma_of=sigma_of,
            tolerance=tolerance,
            memory_budget_mb=memory_budget_mb,
        )

    return evidence_of_points(preds, noise_sigma, compute)


def sum_over_masses(
    preds: Tensor, sigma: Tensor, masses: PointMasses, delta: float
) -> PointEvidence:
    """Return the evidence of flat predictions from all pairs with masses."""
    precision = (1 / sigma**2)[..., None]
    distance = masses.locations - preds[:, None]
    pull = distance.clamp(-delta, delta)
    energy = pull * (distance - 0.5 * pull) * precision
    terms = masses.weights.log() - energy
    log_sum = torch.logsumexp(terms, dim=1)
    posterior = torch.exp(terms - log_sum[:, None])
    by_preds = (posterior * pull).sum(1) / sigma**2
    by_sigma = (2 * (posterior * energy).sum(1) - normaliser_slope(sigma, delta)) / sigma
    return PointEvidence(log_sum - log_normaliser(sigma, delta), by_preds, by_sigma)


def log_normaliser(sigma: Tensor, delta: float) -> Tensor:
    """Return the logarithm of Z(sigma), the integral of exp(-h(r) / sigma^2) over r.

        Z = sigma [sqrt(2 pi) erf(u / sqrt 2) + (2 / u) exp(-u^2 / 2)],   u = delta / sigma

    The first term belongs to |r| <= delta, the second to the two tails.

    Example:
        >>> round(log_normaliser(torch.tensor(1.0), 100.0).item(), 4)  # log sqrt(2 pi)
        0.9189
    """
    core, tails = _core_and_tails(sigma, delta)
    return sigma.log() + (core + tails).log()


def normaliser_slope(sigma: Tensor, delta: float) -> Tensor:
    """Return d log Z / d log sigma: 1 for noise that is all core, 2 for noise that is all tail."""
    core, tails = _core_and_tails(sigma, delta)
    return 1 + tails / (core + tails)


def _core_and_tails(sigma: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    u = delta / sigma
    core = math.sqrt(2 * math.pi) * torch.erf(u * math.sqrt(0.5))
    return core, 2 / u * torch.exp(-0.5 * u**2)
