"""Noise families: the densities f of label noise over which a loss can be balanced.

Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) holds for any f(y - p): the training posterior is
f(y - p) p_train(y) / integral of f(y' - p) p_train(y'), and its negative logarithm is the balanced
loss. The paper works out the Gaussian.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal, TypedDict, Unpack

from torch import Tensor

from depthbal.losses.kernel.evaluate import SigmaOf
from depthbal.losses.kernel.evidence import log_evidence
from depthbal.losses.readout import truncated_normal_mean
from depthbal.priors import GaussianMixture

FamilyKind = Literal["gaussian", "laplace", "huber"]


class EvidenceOptions(TypedDict, total=False):
    """How the evidence is computed; see ``log_evidence``."""

    sigma_of: SigmaOf | None
    tolerance: float
    memory_budget_mb: float


class NoiseFamily(ABC):
    """A symmetric noise density f(r) = exp(-energy(r, s)) / normaliser(s) of scale s."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return -log f up to the normaliser, elementwise."""

    @abstractmethod
    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return the logarithm of the integral of exp(-energy), elementwise."""

    @abstractmethod
    def unit(self, sigma: Tensor) -> Tensor:
        """Return the factor that turns the energy into the plain, unbalanced loss."""

    @abstractmethod
    def log_evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        sigma: Tensor,
        **options: Unpack[EvidenceOptions],
    ) -> Tensor:
        """Return the logarithm of the integral of f(y - p) p_train(y), one value per label."""

    @abstractmethod
    def readout(self, preds: Tensor, sigma: Tensor, label_range: tuple[float, float]) -> Tensor:
        """Return the mean of f(y - p) truncated to the label range, elementwise."""

    def log_density(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return log f(r), elementwise."""
        return -self.energy(residual, sigma) - self.log_normaliser(sigma)


class GaussianFamily(NoiseFamily):
    """N(0, s^2): Balanced MSE, the loss of the paper.

    Example:
        >>> import torch
        >>> GaussianFamily().log_density(torch.tensor(0.0), torch.tensor(1.0))
        tensor(-0.9189)
    """

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return r^2 / (2 s^2)."""
        return residual**2 / (2 * sigma**2)

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log s sqrt(2 pi)."""
        return sigma.log() + 0.5 * math.log(2 * math.pi)

    def unit(self, sigma: Tensor) -> Tensor:
        """Return 2 s^2, which turns the energy into the squared error."""
        return 2 * sigma**2

    def log_evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        sigma: Tensor,
        **options: Unpack[EvidenceOptions],
    ) -> Tensor:
        """Return ``log_evidence``, in closed form for any mixture."""
        return log_evidence(preds, prior, sigma, **options)

    def readout(self, preds: Tensor, sigma: Tensor, label_range: tuple[float, float]) -> Tensor:
        """Return the truncated-normal mean."""
        return truncated_normal_mean(preds, sigma, label_range)
