"""A mixture of normal distributions: the one form in which every prior reaches the loss."""

import math
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.io import Stored
from depthbal.priors.fitting import CovarianceType, FitReport, fit_histogram, fit_samples
from depthbal.priors.histogram import Histogram, as_float64


class GaussianMixture(Stored):
    """A mixture p(y) = sum_k w_k N(y; mu_k, Sigma_k) of scalars or vectors, held in float64.

    Variances of zero make point masses, which describe a histogram by its bin centres and a batch
    by its own targets. ``fit_report`` says how closely ``fit`` met the histogram.

    Args:
        weights: Shape (K,), not negative; normalised to sum 1.
        means: Shape (K,) for scalar labels, (K, D) for vectors, label units.
        variances: Shape (K,) for scalars; (K, D) for diagonal or (K, D, D) for full covariances of
            vectors; squared label units, positive semi-definite.

    Raises:
        ValueError: Tensors that are no mixture.

    Example:
        >>> mixture = GaussianMixture([1.0, 3.0], [2.0, 6.0], [0.5, 1.0])
        >>> mixture.weights.tolist(), mixture.event_dim
        ([0.25, 0.75], 0)
    """

    fit_report: FitReport | None = None

    def __init__(
        self,
        weights: npt.ArrayLike | Tensor,
        means: npt.ArrayLike | Tensor,
        variances: npt.ArrayLike | Tensor,
    ) -> None:
        self.weights, self.means, self.variances = (
            torch.from_numpy(as_float64(part).copy()) for part in (weights, means, variances)
        )
        self._require_valid()
        total = self.weights.sum()
        # Weights normalised up to rounding stay as they are, so that a file gives them back.
        if abs(total - 1) >= 1e-12:
            self.weights = self.weights / total

    @classmethod
    def unchecked(cls, weights: Tensor, means: Tensor, variances: Tensor) -> Self:
        """Return a mixture of valid tensors without reading them, which would stall a GPU."""
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
    def of_scalars(cls, prior: "GaussianMixture | Histogram") -> "GaussianMixture":
        """Return a prior of scalar labels as a mixture; one of vectors is a ValueError."""
        mixture = cls.from_histogram(prior) if isinstance(prior, Histogram) else prior
        if mixture.event_dim:
            raise ValueError(f"expected a prior of scalar labels, got {tuple(mixture.means.shape)}")
        return mixture

    @classmethod
    def fit(
        cls,
        data: Histogram | npt.ArrayLike | Tensor,
        n_components: int = 16,
        *,
        covariance_type: CovarianceType = "full",
        variance_floor: float | None = None,
        noise_sigma: float = 1.0,
        seed: int = 0,
    ) -> Self:
        """Fit a mixture to a histogram or to samples by expectation maximisation.

        A histogram's labels lie evenly in their bins; the fit weighs the bins and is deterministic.
        The largest |log E_mixture - log E_histogram| between the extreme labels stands in
        ``fit_report``, and one above 0.05 is logged as a warning: BNI is exact there.

        Args:
            data: A Histogram, scalar samples (N,) or vectors (N, D).
            n_components: K, kept as given; the paper uses 16 for depth (supplement, section 2.3).
            covariance_type: ``"full"`` or ``"diag"`` covariances of vectors.
            variance_floor: Smallest variance of a component along any axis, squared label units.
                Default for a histogram: that of labels spread over its narrowest occupied bin; for
                samples 1e-6 of the mean of their variances. Where vectors hardly vary, a floor near
                noise_sigma^2 keeps the loss's pull, which is that of MSE times v / (v + sigma^2).
            noise_sigma: Noise scale of the loss, label units, for comparing with a histogram.
            seed: Seed of the initialisation for samples.

        Raises:
            ValueError: No mass, NaN or infinite samples, fewer samples than components, or a floor
                or noise scale that is not positive.

        Example:
            >>> histogram = Histogram.regular(0.0, 10.0, 0.5).update([1.0, 1.2, 2.2, 3.1, 7.0])
            >>> mixture = GaussianMixture.fit(histogram, 4, noise_sigma=1.0)
            >>> mixture.fit_report.largest_error < 0.05
            True
        """
        if n_components < 1:
            raise ValueError(f"expected at least 1 component, got {n_components}")
        if not isinstance(data, Histogram):
            return cls(*fit_samples(data, n_components, covariance_type, variance_floor, seed))
        parts, report = fit_histogram(data, n_components, variance_floor, noise_sigma)
        mixture = cls(*parts)
        mixture.fit_report = report
        return mixture

    def tilted(self, rate: float) -> Self:
        """Return the mixture of density proportional to p(y) e^(rate y), for scalar labels."""
        if self.event_dim or not math.isfinite(rate):
            raise ValueError(f"expected scalar labels and a finite rate, got {rate}")
        log_weights = self.weights.log() + rate * self.means + rate**2 * self.variances / 2
        weights = (log_weights - log_weights.max()).exp()
        return type(self)(weights, self.means + rate * self.variances, self.variances)

    def relative_to(
        self, target: Literal["uniform", "exp_uniform"] = "uniform", tau: float = 1.0
    ) -> Self:
        """Return the kernel (p_train / p_target)^tau where that is a mixture again.

        See ``Histogram.relative_to``. Full balancing (tau = 1) for labels uniform on the line is
        the mixture itself; for log depths z whose depths e^z shall be uniform it is the mixture
        tilted by e^-z. Any other kernel is a ValueError: weigh the histogram and fit a mixture to
        the result.
        """
        if target not in ("uniform", "exp_uniform") or tau != 1:
            raise ValueError(
                f"(p_train / p_target)^tau with target {target!r} and tau {tau:g} is no mixture of "
                "normal distributions: use GaussianMixture.fit(histogram.relative_to(target, tau))"
            )
        return self.tilted(-1.0) if target == "exp_uniform" else self

    @property
    def event_dim(self) -> int:
        """0 for scalar labels, 1 for vectors."""
        return self.means.ndim - 1

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor | None]:
        """Variances along the principal axes and these axes as columns, decomposed once.

        None stands for axes that are the coordinates.
        """
        if self.variances.ndim < 3:
            return self.variances, None
        eigenvalues, axes = torch.linalg.eigh(self.variances)
        return eigenvalues.clamp(min=0), axes

    def log_density(self, values: Tensor) -> Tensor:
        """Return log p(y) of scalar labels, elementwise; every variance must be positive."""
        if self.event_dim or not (self.variances > 0).all():
            raise ValueError("expected a scalar mixture without point masses")
        distance = values.to(torch.float64)[..., None] - self.means
        log_normal = -0.5 * (distance**2 / self.variances + (2 * math.pi * self.variances).log())
        return torch.logsumexp(self.weights.log() + log_normal, dim=-1)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        parts = ("weights", "means", "variances")
        content = {"kind": "GaussianMixture"} | {n: getattr(self, n).tolist() for n in parts}
        if self.fit_report is not None:
            content["fit_report"] = self.fit_report._asdict()
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the mixture that ``to_dict`` described."""
        mixture = cls(content["weights"], content["means"], content["variances"])
        if content.get("fit_report") is not None:  # older files hold more
            report = content["fit_report"]
            mixture.fit_report = FitReport(*(report[name] for name in FitReport._fields))
        return mixture

    def _require_valid(self) -> None:
        """Raise a ValueError where the tensors are no mixture."""
        weights, means, variances = self.weights, self.means, self.variances
        components, event = weights.shape, means.shape[1:]
        if (
            len(components) != 1
            or not means.numel()
            or means.shape[:1] != components
            or len(event) > 1
            or variances.shape not in (components + event, components + event + event)
        ):
            raise ValueError(
                "expected weights (K,), means (K,) and variances (K,), or means (K, D) and "
                "variances (K, D) or (K, D, D), got "
                f"{', '.join(str(tuple(part.shape)) for part in (weights, means, variances))}"
            )
        square = event and variances.shape == 2 * event and torch.equal(variances, variances.mT)
        if square and not torch.equal(variances, variances[:1].expand_as(variances)):
            raise ValueError(
                "expected one row of variances or one covariance per component, got a symmetric "
                f"{tuple(variances.shape)} that could be a covariance of all: repeat it, (K, D, D)"
            )
        smallest = variances
        if variances.ndim == 3:
            scale = variances.diagonal(dim1=1, dim2=2).amax(1)
            smallest = torch.linalg.eigvalsh(variances.nan_to_num())[:, 0] + 1e-9 * scale
        if (
            not all(torch.isfinite(part).all() for part in (weights, means, variances))
            or not ((weights >= 0).all() and weights.sum() > 0 and (smallest >= 0).all())
            or (variances.ndim == 3 and not torch.allclose(variances, variances.mT))
        ):
            raise ValueError(
                "expected finite weights, means and variances, weights that are not negative and "
                "sum to more than 0, variances that are not negative, and symmetric covariances"
            )
