"""A mixture of normal distributions: the one form in which every prior reaches the loss."""

import math
import os
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.priors.files import read_json_kind, write_json
from depthbal.priors.histogram import Histogram

QUANTILES_PER_COMPONENT = 1024


class GaussianMixture:
    """A scalar mixture p(y) = sum_k w_k N(y; mu_k, v_k), held in float64.

    Variances of zero are allowed: they make point masses, which describe a histogram by its bin
    centres and a batch by its own targets.

    Args:
        weights: Shape (K,), not negative; normalised to sum 1.
        means: Shape (K,), label units.
        variances: Shape (K,), squared label units, not negative.

    Raises:
        ValueError: Shapes that differ, values that are not finite, negative weights or variances,
            or weights that sum to 0.

    Example:
        >>> mixture = GaussianMixture([1.0, 3.0], [2.0, 6.0], [0.5, 1.0])
        >>> mixture.weights.tolist(), round(mixture.mean, 3)
        ([0.25, 0.75], 5.0)
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
        tensors = {
            name: torch.as_tensor(part, dtype=torch.float64).detach()
            for name, part in parts.items()
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if (
            len(set(shapes.values())) != 1
            or len(shapes["weights"]) != 1
            or not shapes["weights"][0]
        ):
            raise ValueError(
                f"expected weights, means and variances of one shape (K,), got {shapes}"
            )
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"expected finite {name}, got {tensor.tolist()}")
        total = tensors["weights"].sum()
        if (tensors["weights"] < 0).any() or not total > 0:
            raise ValueError("expected weights that are not negative and sum to more than 0")
        if (tensors["variances"] < 0).any():
            raise ValueError("expected variances that are not negative")
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
        data: "Histogram | npt.ArrayLike | Tensor",
        n_components: int = 16,
        *,
        variance_floor: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit a mixture to a histogram or to samples by expectation maximisation.

        scikit-learn's estimator takes no sample weights, so a histogram is represented by its
        equal-mass quantiles (1,024 per component), which takes seconds for any number of labels
        and is deterministic.

        Args:
            data: A Histogram, or samples of any shape.
            n_components: K; the paper uses 16 for depth (supplement, section 2.3).
            variance_floor: Smallest variance of a component. Default: the mean bin width squared
                / 12, the variance of a label inside its bin, so that no component collapses onto
                one level of quantised labels; for samples, 1e-6 of their variance.
            seed: Seed of the initialisation.

        Raises:
            ValueError: No mass, NaN or infinite samples, or fewer distinct labels than needed.
        """
        from sklearn.mixture import GaussianMixture as Estimator

        if n_components < 1:
            raise ValueError(f"expected at least 1 component, got {n_components}")
        samples, floor = _representatives(data, n_components)
        floor = floor if variance_floor is None else variance_floor
        if not floor > 0:
            raise ValueError(f"expected a positive variance_floor, got {floor}")
        distinct = len(np.unique(samples))
        if distinct < n_components:
            raise ValueError(
                f"expected at least {n_components} distinct labels for {n_components} components, "
                f"got {distinct}: use fewer components"
            )
        estimator = Estimator(
            n_components,
            covariance_type="spherical",
            reg_covar=floor * 1e-3,
            init_params="kmeans",
            max_iter=1000,
            tol=1e-4,
            random_state=seed,
        )
        estimator.fit(samples[:, None])
        variances = np.maximum(estimator.covariances_, floor)
        order = np.argsort(estimator.means_[:, 0])
        return cls(estimator.weights_[order], estimator.means_[order, 0], variances[order])

    @property
    def mean(self) -> float:
        """Mean of the mixture, label units."""
        return float(self.weights @ self.means)

    def log_density(self, values: Tensor) -> Tensor:
        """Log p(y), elementwise; every variance must be positive.

        Example:
            >>> standard = GaussianMixture([1.0], [0.0], [1.0])
            >>> round(standard.log_density(torch.tensor(0.0)).item(), 6)
            -0.918939
        """
        if not (self.variances > 0).all():
            raise ValueError("a mixture with point masses has no density")
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


def _representatives(
    data: "Histogram | npt.ArrayLike | Tensor", n_components: int
) -> tuple[npt.NDArray[np.float64], float]:
    """Return samples to fit and the default variance floor."""
    if isinstance(data, Histogram):
        count = QUANTILES_PER_COMPONENT * n_components
        samples = data.quantiles((np.arange(count) + 0.5) / count)
        return samples, float(np.mean(data.widths)) ** 2 / 12
    if isinstance(data, Tensor):
        data = data.detach().to("cpu", torch.float64).numpy()
    samples = np.asarray(data, dtype=np.float64).ravel()
    if samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError("expected finite samples, got none, NaN or infinite ones")
    return samples, max(1e-6 * float(np.var(samples)), float(np.finfo(np.float64).tiny))
