"""A mixture of normal distributions: the one form in which every prior reaches the loss."""

import math
import os
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.priors.files import read_json_kind, write_json
from depthbal.priors.fitting import CovarianceType, expectation_maximisation, representatives
from depthbal.priors.histogram import Histogram


class GaussianMixture:
    """A mixture p(y) = sum_k w_k N(y; mu_k, Sigma_k) of scalars or vectors, held in float64.

    Variances of zero are allowed: they make point masses, which describe a histogram by its bin
    centres and a batch by its own targets.

    Args:
        weights: Shape (K,), not negative; normalised to sum 1.
        means: Shape (K,) for scalar labels, (K, D) for vectors, label units.
        variances: Shape (K,) for scalars; (K, D) for diagonal or (K, D, D) for full covariances of
            vectors; squared label units, positive semi-definite.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, negative weights or
            variances, asymmetric covariances, or weights that sum to 0.

    Example:
        >>> mixture = GaussianMixture([1.0, 3.0], [2.0, 6.0], [0.5, 1.0])
        >>> mixture.weights.tolist(), mixture.event_dim
        ([0.25, 0.75], 0)
        >>> GaussianMixture([1.0], [[2.0, 6.0]], [[[1.0, 0.5], [0.5, 1.0]]]).event_dim
        1
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        weights: npt.ArrayLike | Tensor,
        means: npt.ArrayLike | Tensor,
        variances: npt.ArrayLike | Tensor,
    ) -> None:
        parts = {"weights": weights, "means": means, "variances": variances}
        tensors = {name: _copied(part) for name, part in parts.items()}
        _require_shapes(**tensors)
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"expected finite {name}, got {tensor.tolist()}")
        total = tensors["weights"].sum()
        if (tensors["weights"] < 0).any() or not total > 0:
            raise ValueError("expected weights that are not negative and sum to more than 0")
        _require_semidefinite(tensors["variances"])
        self.weights = tensors["weights"] / total
        self.means = tensors["means"]
        self.variances = tensors["variances"]

    @classmethod
    def unchecked(cls, weights: Tensor, means: Tensor, variances: Tensor) -> Self:
        """Return a mixture of tensors known to be valid, on their device, without reading them.

        The checks of the constructor read values and so would stall a GPU in every training step.
        """
        mixture = cls.__new__(cls)
        mixture.weights, mixture.means, mixture.variances = weights, means, variances
        return mixture

    @classmethod
    def from_histogram(cls, histogram: Histogram) -> Self:
        """Return point masses at the centres of the occupied bins (the prior of BNI)."""
        histogram.require_mass()
        occupied = histogram.counts > 0
        centers = histogram.centers[occupied]
        return cls(histogram.counts[occupied], centers, np.zeros_like(centers))

    @classmethod
    def fit(
        cls,
        data: Histogram | npt.ArrayLike | Tensor,
        n_components: int = 16,
        *,
        covariance_type: CovarianceType = "full",
        variance_floor: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit a mixture to a histogram or to samples by expectation maximisation.

        A histogram is represented by its equal-mass quantiles (1,024 per component), so that the
        fit takes seconds for any number of labels and is deterministic.

        Args:
            data: A Histogram, scalar samples (N,) or vectors (N, D).
            n_components: K; the paper uses 16 for depth (supplement, section 2.3).
            covariance_type: ``"full"`` or ``"diag"`` covariances of vectors.
            variance_floor: Smallest variance of a component along any axis. Default for a
                histogram: the mean bin width squared / 12, the variance of a label inside its bin,
                so that no component collapses onto one level of quantised labels; for samples,
                1e-6 of their mean variance.
            seed: Seed of the initialisation.

        Raises:
            ValueError: No mass, NaN or infinite samples, or fewer distinct labels than components.
        """
        if n_components < 1:
            raise ValueError(f"expected at least 1 component, got {n_components}")
        samples, floor = representatives(data, n_components)
        floor = floor if variance_floor is None else variance_floor
        if not floor > 0:
            raise ValueError(f"expected a positive variance_floor, got {floor}")
        return cls(*expectation_maximisation(samples, n_components, covariance_type, floor, seed))

    @property
    def event_dim(self) -> int:
        """0 for scalar labels, 1 for vectors."""
        return self.means.ndim - 1

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor | None]:
        """Variances along the principal axes and these axes as columns, decomposed once.

        Shapes (K, D) and (K, D, D) for full covariances; otherwise the variances as they are and
        None, for axes that are the coordinates.
        """
        if self.variances.ndim < 3:
            return self.variances, None
        eigenvalues, axes = torch.linalg.eigh(self.variances)
        return eigenvalues.clamp(min=0), axes

    def log_density(self, values: Tensor) -> Tensor:
        """Log p(y) of scalar labels, elementwise; every variance must be positive.

        Example:
            >>> standard = GaussianMixture([1.0], [0.0], [1.0])
            >>> round(standard.log_density(torch.tensor(0.0)).item(), 6)
            -0.918939
        """
        if self.event_dim or not (self.variances > 0).all():
            raise ValueError("expected a scalar mixture without point masses")
        distance = values.to(torch.float64)[..., None] - self.means
        log_normal = -0.5 * (distance**2 / self.variances + (2 * math.pi * self.variances).log())
        return torch.logsumexp(self.weights.log() + log_normal, dim=-1)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "kind": "GaussianMixture",
            "weights": self.weights.tolist(),
            "means": self.means.tolist(),
            "variances": self.variances.tolist(),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the mixture that ``to_dict`` described."""
        return cls(content["weights"], content["means"], content["variances"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mixture as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a mixture that ``save`` wrote.

        Raises:
            ValueError: The file holds something else.
        """
        return cls.from_dict(read_json_kind(path, "GaussianMixture"))


def _copied(part: npt.ArrayLike | Tensor) -> Tensor:
    """Return a copy in float64, which the caller's later changes do not reach."""
    if isinstance(part, Tensor):
        return part.detach().to(torch.float64, copy=True)
    return torch.tensor(np.array(part, dtype=np.float64))


def _require_shapes(weights: Tensor, means: Tensor, variances: Tensor) -> None:
    """Raise a ValueError unless the shapes are those of a scalar or vector mixture."""
    components, event = tuple(weights.shape), tuple(means.shape[1:])
    fits = (
        len(components) == 1
        and weights.numel() > 0
        and means.numel() > 0
        and tuple(means.shape[:1]) == components
        and len(event) <= 1
        and tuple(variances.shape) in (components + event, components + 2 * event)
    )
    if not fits:
        shapes = [tuple(part.shape) for part in (weights, means, variances)]
        raise ValueError(
            "expected weights (K,), means (K,) and variances (K,), or means (K, D) and variances "
            f"(K, D) or (K, D, D), got {shapes[0]}, {shapes[1]}, {shapes[2]}"
        )


def _require_semidefinite(variances: Tensor) -> None:
    """Raise a ValueError unless variances are not negative and covariances symmetric."""
    if variances.ndim == 3:
        if not torch.allclose(variances, variances.mT):
            raise ValueError("expected symmetric covariances")
        scale = variances.diagonal(dim1=1, dim2=2).amax(1)
        if (torch.linalg.eigvalsh(variances)[:, 0] < -1e-9 * scale).any():
            raise ValueError("expected covariances that are positive semi-definite")
    elif (variances < 0).any():
        raise ValueError("expected variances that are not negative")
