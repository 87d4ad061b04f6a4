"""The skewed label distributions of the synthetic benchmark."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from depthbal.priors import GaussianMixture

PRIOR_DRAWS = 10_000  # to which the mixture of GAI is fitted, as published
# Draws for a prior must not be those that training takes with the same seed.
PRIOR_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class LabelDistribution(ABC):
    """p_train(y): a standard distribution, moved and stretched.

    Args:
        skewness: What makes it more or less skewed; the unit is the distribution's own.
    """

    skewness: float

    dim: ClassVar[int] = 1
    label_range: ClassVar[tuple[float, float]] = (0.0, 10.0)
    prior_components: ClassVar[int] = 1  # as published

    @abstractmethod
    def standard(self, count: int, generator: torch.Generator) -> Tensor:
        """Return draws (count, D) of the standard distribution."""

    @property
    @abstractmethod
    def transform(self) -> tuple[Tensor, Tensor]:
        """Offset (D,) and matrix B (D, D) with y = offset + B z for standard z."""

    @abstractmethod
    def log_prob(self, labels: Tensor) -> Tensor:
        """Return log p_train(y) of labels (..., D), shape (...)."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Mean label, (D,)."""

    @property
    def covariance(self) -> Tensor:
        """Covariance of the labels, (D, D); that of the standard distribution is the identity."""
        matrix = self.transform[1]
        return matrix @ matrix.T

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return labels (count, D) in float64; the same generator gives the same standard draws."""
        offset, matrix = self.transform
        return offset + self.standard(count, generator) @ matrix.T

    def prior(self, seed: int, n_components: int | None = None) -> GaussianMixture:
        """Return a mixture fitted to 10,000 draws, as the published benchmark does.

        The standard distribution is fitted, once per seed, and moved and stretched like the labels.

        Args:
            seed: Seed of the draws.
            n_components: Components; the published number when omitted.
        """
        standard = _standard_prior(type(self), seed, n_components or self.prior_components)
        offset, matrix = self.transform
        if self.dim == 1:
            scale = matrix[0, 0]
            means = offset + scale * standard.means
            return GaussianMixture(standard.weights, means, scale**2 * standard.variances)
        covariances = matrix @ standard.variances @ matrix.T
        symmetric = (covariances + covariances.mT) / 2
        return GaussianMixture(standard.weights, offset + standard.means @ matrix.T, symmetric)


class NormalLabels(LabelDistribution):
    """N(5, s^2) with skewness s, on [0, 10].

    Example:
        >>> NormalLabels(0.5).covariance.tolist()
        [[0.25]]
    """

    def standard(self, count: int, generator: torch.Generator) -> Tensor:
        """Return standard normal draws."""
        return torch.randn(count, 1, generator=generator, dtype=torch.float64)

    @property
    def transform(self) -> tuple[Tensor, Tensor]:
        """5 and s."""
        return _column(5.0), _column(self.skewness)[None]

    def log_prob(self, labels: Tensor) -> Tensor:
        """Return log N(y; 5, s^2)."""
        normal = torch.distributions.Normal(5.0, self.skewness)
        log_prob: Tensor = normal.log_prob(labels[..., 0])  # type: ignore[no-untyped-call]
        return log_prob

    @property
    def mean(self) -> Tensor:
        """5."""
        return _column(5.0)


class ExponentialLabels(LabelDistribution):
    """Exponential of rate ``skewness``, on [0, 10].

    Example:
        >>> ExponentialLabels(2.0).mean.tolist()
        [0.5]
    """

    prior_components: ClassVar[int] = 64

    def standard(self, count: int, generator: torch.Generator) -> Tensor:
        """Return exponential draws of rate 1."""
        draws = torch.empty(count, 1, dtype=torch.float64)
        return draws.exponential_(1.0, generator=generator)

    @property
    def transform(self) -> tuple[Tensor, Tensor]:
        """0 and 1 / rate."""
        return _column(0.0), _column(1 / self.skewness)[None]

    def log_prob(self, labels: Tensor) -> Tensor:
        """Return log rate - rate y."""
        return math.log(self.skewness) - self.skewness * labels[..., 0]

    @property
    def mean(self) -> Tensor:
        """1 / rate."""
        return _column(1 / self.skewness)


class MVNLabels(LabelDistribution):
    """N(0, c (0.5 I + 0.5 11^T)) of two dimensions with skewness c, on [-5, 5]^2.

    Labels outside the range are kept, as published.

    Example:
        >>> MVNLabels(0.25).covariance.tolist()
        [[0.25, 0.125], [0.125, 0.25]]
    """

    dim: ClassVar[int] = 2
    label_range: ClassVar[tuple[float, float]] = (-5.0, 5.0)

    def standard(self, count: int, generator: torch.Generator) -> Tensor:
        """Return standard normal draws."""
        return torch.randn(count, 2, generator=generator, dtype=torch.float64)

    @property
    def transform(self) -> tuple[Tensor, Tensor]:
        """0 and the Cholesky factor of the covariance."""
        return torch.zeros(2, dtype=torch.float64), torch.linalg.cholesky(self.covariance)

    @property
    def covariance(self) -> Tensor:
        """C (0.5 I + 0.5 11^T)."""
        return self.skewness * torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)

    def log_prob(self, labels: Tensor) -> Tensor:
        """Return log N(y; 0, covariance)."""
        normal = torch.distributions.MultivariateNormal(self.mean, self.covariance)
        log_prob: Tensor = normal.log_prob(labels)  # type: ignore[no-untyped-call]
        return log_prob

    @property
    def mean(self) -> Tensor:
        """The origin."""
        return torch.zeros(2, dtype=torch.float64)


def _column(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@cache
def _standard_prior(kind: type[LabelDistribution], seed: int, n_components: int) -> GaussianMixture:
    """Return the mixture of a standard distribution, in the form that can be transformed."""
    generator = torch.Generator().manual_seed(seed + PRIOR_SEED_OFFSET)
    draws = kind(1.0).standard(PRIOR_DRAWS, generator)
    if kind.dim == 1:
        return GaussianMixture.fit(draws[:, 0], n_components, seed=seed)
    return GaussianMixture.fit(draws, n_components, seed=seed)
