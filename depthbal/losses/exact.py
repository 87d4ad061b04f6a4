"""The exact evidence of flat predictions with its derivatives, chunk by chunk."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Numbers per temporary. On a CPU a few temporaries of this size stay in the cache; on a GPU a chunk
# must be large enough to hide the launches.
CHUNK_NUMBERS = {"cpu": 2**17}
CHUNK_NUMBERS_DEVICE = 2**24


class Evidence(NamedTuple):
    """Log evidence (n,) and its derivatives by prediction, (n,) or (n, D), and by sigma, (n,)."""

    value: Tensor
    by_preds: Tensor
    by_sigma: Tensor


class Components(NamedTuple):
    """A mixture as the exact sums want it.

    log_weights (K,); means (K,) or (K, D); variances (K,), or along the axes (K, D); axes (K, D, D)
    with the axes as columns, or None where they are the coordinates.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor | None = None

    def to(self, preds: Tensor) -> "Components":
        """Return the mixture in the type and on the device of ``preds``."""
        return Components(
            self.log_weights.to(preds),
            self.means.to(preds),
            self.variances.to(preds),
            None if self.axes is None else self.axes.to(preds),
        )


def exact_evidence(preds: Tensor, sigma: Tensor, mixture: Components) -> Evidence:
    """Return log sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I) and its derivatives.

    Args:
        preds: (n,) for scalar labels, (n, D) for vectors.
        sigma: Shape () for one noise scale, (n,) for one per prediction.
        mixture: In the type and on the device of ``preds``.
    """
    compute = _scalars if preds.ndim == 1 else _vectors
    value, by_sigma = (preds.new_empty(preds.shape[0]) for _ in range(2))
    by_preds = torch.empty_like(preds)
    numbers = CHUNK_NUMBERS.get(preds.device.type, CHUNK_NUMBERS_DEVICE)
    step = max(1, numbers // max(1, mixture.means.numel()))
    for start in range(0, preds.shape[0], step):
        chunk = slice(start, start + step)
        noise = sigma if sigma.ndim == 0 else sigma[chunk]
        value[chunk], by_preds[chunk], by_sigma[chunk] = compute(preds[chunk], noise, mixture)
    return Evidence(value, by_preds, by_sigma)


def _scalars(preds: Tensor, sigma: Tensor, mixture: Components) -> Evidence:
    total = mixture.variances + (sigma**2)[..., None]
    precision = 1 / total
    distance = mixture.means - preds[:, None]
    pull = distance * precision
    log_scale = mixture.log_weights - 0.5 * torch.log(2 * math.pi * total)
    log_sum, posterior = _normalise(log_scale - 0.5 * distance * pull)
    by_sigma = sigma * (posterior * (pull**2 - precision)).sum(1)
    return Evidence(log_sum, (posterior * pull).sum(1), by_sigma)


def _vectors(preds: Tensor, sigma: Tensor, mixture: Components) -> Evidence:
    total = mixture.variances + (sigma**2)[..., None, None]
    precision = 1 / total
    distance = mixture.means - preds[:, None, :]
    if mixture.axes is not None:
        distance = torch.einsum("nkd,kde->nke", distance, mixture.axes)
    pull = distance * precision
    log_scale = mixture.log_weights - 0.5 * torch.log(2 * math.pi * total).sum(-1)
    log_sum, posterior = _normalise(log_scale - 0.5 * (distance * pull).sum(-1))
    by_sigma = sigma * (posterior * (pull**2 - precision).sum(-1)).sum(1)
    pull = posterior[..., None] * pull
    if mixture.axes is None:
        return Evidence(log_sum, pull.sum(1), by_sigma)
    return Evidence(log_sum, torch.einsum("nke,kde->nd", pull, mixture.axes), by_sigma)


def _normalise(log_terms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the sum over components and the components' posterior."""
    log_sum = torch.logsumexp(log_terms, dim=1)
    return log_sum, torch.exp(log_terms - log_sum[:, None])
