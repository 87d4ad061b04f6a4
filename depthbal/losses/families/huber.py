"""Huber noise: the balanced Huber loss."""

import math
from typing import Unpack

import torch
from torch import Tensor

from depthbal.losses.families.base import EvidenceOptions, NoiseFamily
from depthbal.losses.families.huber_evidence import huber_log_evidence, log_normaliser
from depthbal.losses.families.huber_readout import truncated_huber_mean
from depthbal.priors import GaussianMixture


class HuberFamily(NoiseFamily):
    """Noise density f(r) = exp(-h(r) / sigma^2) / Z(sigma): the balanced Huber loss.

        L(p, y) = h(y - p) / sigma^2 + log sum_k w_k exp(-h(mu_k - p) / sigma^2)

    for a prior of point masses, which BNI and BMC have, with Huber's h(r) = r^2 / 2 for |r| <=
    delta and delta (|r| - delta / 2) beyond. Times sigma^2 it compares with the plain Huber loss
    (with half the squared error, that is, where the Gaussian family gives the whole). Noise of
    standard deviation sigma near 0 has tails of scale sigma^2 / delta: a large delta is Gaussian
    noise, a small one is Laplace noise of that scale.

    Args:
        delta: Residual > 0 at which the tails begin, label units.

    Source: Theorem 1 of Balanced MSE (Ren et al., CVPR 2022), which holds for any density; the
    paper works out the Gaussian only, so that this goes beyond it. Huber, Robust Estimation of a
    Location Parameter, 1964, for h and its density.

    Example:
        >>> HuberFamily(1.0).energy(torch.tensor([0.5, -3.0]), torch.tensor(1.0))
        tensor([0.1250, 2.5000])
    """

    def __init__(self, delta: float) -> None:
        if not (math.isfinite(delta) and delta > 0):
            raise ValueError(f"expected a positive, finite delta in label units, got {delta}")
        self.delta = float(delta)

    def __repr__(self) -> str:
        return f"HuberFamily({self.delta})"

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return h(r) / sigma^2."""
        zero = torch.zeros_like(residual)
        return torch.nn.functional.huber_loss(residual, zero, "none", self.delta) / sigma**2

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log Z(sigma)."""
        return log_normaliser(sigma, self.delta)

    def unit(self, sigma: Tensor) -> Tensor:
        """Return sigma^2, which turns the energy into Huber's loss."""
        return sigma**2

    def log_evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        sigma: Tensor,
        **options: Unpack[EvidenceOptions],
    ) -> Tensor:
        """Return ``huber_log_evidence``: point masses and scalar labels only."""
        return huber_log_evidence(preds, prior, sigma, self.delta, **options)

    def readout(self, preds: Tensor, sigma: Tensor, label_range: tuple[float, float]) -> Tensor:
        """Return ``truncated_huber_mean``."""
        return truncated_huber_mean(preds, sigma, self.delta, label_range)
