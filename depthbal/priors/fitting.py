"""Fitting Gaussian mixtures to histograms, by weighted EM, and to samples."""

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.special import log_ndtr

from depthbal.priors.histogram import Histogram

logger = logging.getLogger(__name__)

LARGEST_ERROR = 0.05  # of the log-evidence; a fit that misses it is reported
CELLS_PER_COMPONENT = 32
MAX_STEPS = 500
TOLERANCE = 1e-7  # of the mean log-likelihood per label
TEMPER = 0.15  # of the densities that share out the first components: tails get theirs
UNDERFLOW = 1e-30  # share of every cell that a component keeps, so that none ends without mass

CovarianceType = Literal["full", "diag"]
FloatArray = npt.NDArray[np.float64]
ScalarMixture = tuple[FloatArray, FloatArray, FloatArray]  # weights, means, variances: (K,) each


@dataclass(frozen=True)
class FitReport:
    """How well a mixture stands for the histogram that it was fitted to.

    Attributes:
        noise_sigma: Noise scale of the evidences that are compared, label units.
        largest_error: Largest |log E_mixture - log E_histogram| for predictions between the
            smallest and the largest label.
        at: The prediction where it lies, label units.
    """

    noise_sigma: float
    largest_error: float
    at: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)


def fit_histogram(
    histogram: Histogram, n_components: int, floor: float | None, noise_sigma: float
) -> tuple[ScalarMixture, FitReport]:
    """Return the mixture of largest likelihood, means increasing, and how close its evidence is.

    Expectation maximisation (Dempster, Laird and Rubin, 1977) with weighted data: a cell of mass
    g, centre x and width h contributes g (x - mu_k)^2 + g h^2 / 12 to the spread of component k.
    It needs no samples and no random start: the components begin at quantiles of the tempered
    histogram, so that the tail, which has little mass but half of the label range, gets some.
    """
    histogram.require_mass()
    if not (noise_sigma > 0 and np.isfinite(noise_sigma)):
        raise ValueError(f"expected a positive, finite noise_sigma, got {noise_sigma}")
    if floor is None:
        floor = float(histogram.widths[histogram.counts > 0].min()) ** 2 / 12
    cells = _cells(histogram, CELLS_PER_COMPONENT * n_components)
    mixture = _start(histogram, n_components, _positive(floor))
    previous = -np.inf
    for _ in range(MAX_STEPS):
        mixture, likelihood = _step(mixture, *cells, floor)
        if likelihood - previous < TOLERANCE:
            break
        previous = likelihood
    weights, means, variances = mixture
    order = np.argsort(means)
    mixture = weights[order] / weights.sum(), means[order], variances[order]
    report = _compare(mixture, histogram, noise_sigma)
    if report.largest_error > LARGEST_ERROR:
        logger.warning(
            "a mixture of %d components misses the log-evidence of its histogram by up to %.2g "
            "(at %.3g, noise sigma %.3g): use more components, a larger sigma, or BNILoss, which "
            "needs no fit",
            *(n_components, report.largest_error, report.at, noise_sigma),
        )
    return mixture, report


def _cells(histogram: Histogram, at_least: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cut the occupied bins into equal cells: their mass, centres and variance inside, (N,)."""
    occupied = histogram.counts > 0
    pieces = -(-at_least // int(occupied.sum()))
    width = histogram.widths[occupied, None] / pieces
    centers = histogram.edges[:-1][occupied, None] + width * (np.arange(pieces) + 0.5)
    mass = histogram.counts[occupied, None] / histogram.total / pieces
    return (
        np.broadcast_to(mass, centers.shape).ravel(),
        centers.ravel(),
        np.broadcast_to(width**2 / 12, centers.shape).ravel(),
    )


def _start(histogram: Histogram, n_components: int, floor: float) -> ScalarMixture:
    """Cut the label range into slabs of equal tempered mass, one component each."""
    density = histogram.counts / histogram.widths
    tempered = np.where(density > 0, (density / density.max()) ** TEMPER, 0.0)
    shares = Histogram(histogram.edges, tempered * histogram.widths)
    slabs = shares.quantiles(np.arange(n_components + 1) / n_components)
    below = np.concatenate([[0.0], np.cumsum(histogram.counts) / histogram.total])
    weights = np.diff(np.interp(slabs, histogram.edges, below)) + UNDERFLOW
    return weights, (slabs[1:] + slabs[:-1]) / 2, np.maximum(np.diff(slabs) ** 2 / 12, floor)


def _step(
    mixture: ScalarMixture, mass: FloatArray, centers: FloatArray, blur: FloatArray, floor: float
) -> tuple[ScalarMixture, float]:
    """Return the mixture after one step of EM, and the log-likelihood before it."""
    weights, means, variances = mixture
    squared = (centers[:, None] - means) ** 2 + blur[:, None]
    log_joint = np.log(weights / np.sqrt(2 * np.pi * variances)) - squared / (2 * variances)
    largest = log_joint.max(axis=1, keepdims=True)
    joint = np.exp(log_joint - largest)
    density = joint.sum(axis=1, keepdims=True)
    likelihood = float(mass @ (largest + np.log(density))[:, 0])
    shares = (joint / density + UNDERFLOW) * mass[:, None]
    weights = shares.sum(axis=0)
    means = centers @ shares / weights
    squared = (centers[:, None] - means) ** 2 + blur[:, None]
    variances = np.maximum((squared * shares).sum(axis=0) / weights, floor)
    return (weights, means, variances), likelihood


def _compare(mixture: ScalarMixture, histogram: Histogram, noise_sigma: float) -> FitReport:
    """Compare log E with that of labels spread evenly within their bins.

    log E(p) = log sum_b q_b [Phi((r_b - p) / sigma) - Phi((l_b - p) / sigma)]
    """
    occupied = histogram.counts > 0
    left, right = (
        torch.from_numpy(side[occupied]) for side in (histogram.edges[:-1], histogram.edges[1:])
    )
    low, high = float(left[0]), float(right[-1])
    points = int(np.clip(8 * (high - low) / noise_sigma, 256, 2048))  # 8 per sigma
    places = torch.linspace(low, high, points, dtype=torch.float64)[:, None]
    below, above = (left - places) / noise_sigma, (right - places) / noise_sigma
    # Phi is flat far above 0: there the same difference is taken in the lower tail.
    flip = below > 0
    lower, upper = torch.where(flip, -above, below), torch.where(flip, -below, above)
    log_upper = log_ndtr(upper)
    log_mass = log_upper + torch.log(-torch.expm1(log_ndtr(lower) - log_upper))
    density = torch.from_numpy(histogram.densities[occupied])
    expected = torch.logsumexp(density.log() + log_mass, dim=1)
    weights, means, variances = (torch.from_numpy(part) for part in mixture)
    blurred = variances + noise_sigma**2
    log_normal = -0.5 * ((places - means) ** 2 / blurred + (2 * np.pi * blurred).log())
    errors = torch.logsumexp(weights.log() + log_normal, dim=1) - expected
    worst = int(errors.abs().argmax())
    return FitReport(noise_sigma, float(errors[worst].abs()), float(places[worst]))


def fit_samples(
    data: npt.ArrayLike | Tensor,
    n_components: int,
    covariance_type: CovarianceType,
    floor: float | None,
    seed: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weights, means and (co)variances, no variance along any axis below the floor."""
    from sklearn.mixture import GaussianMixture as Estimator

    if covariance_type not in get_args(CovarianceType):
        raise ValueError(f"expected covariance_type 'full' or 'diag', got {covariance_type!r}")
    samples = _samples(data, n_components)
    # Relative to their mean: variances are differences of squares, which an offset would swallow.
    offset = samples.mean(axis=0)
    centred = (samples - offset).reshape(len(samples), -1)
    if floor is None:
        floor = 1e-6 * float(np.mean(np.var(centred, axis=0)))
        if not floor > 0:
            raise ValueError("expected labels that vary, got equal ones: set variance_floor")
    estimator = Estimator(
        n_components,
        covariance_type="diag" if samples.ndim == 1 else covariance_type,
        reg_covar=_positive(floor) * 1e-3,
        init_params="kmeans",
        max_iter=1000,
        tol=1e-4,
        random_state=seed,
    )
    estimator.fit(centred)
    order = np.argsort(estimator.means_[:, 0])
    weights, means = estimator.weights_[order], estimator.means_[order]
    covariances = _raised(estimator.covariances_[order], floor)
    if samples.ndim == 1:
        return weights, means[:, 0] + offset, covariances[:, 0]
    return weights, means + offset, covariances


def _samples(data: npt.ArrayLike | Tensor, n_components: int) -> FloatArray:
    """Return finite samples (N,) or (N, D), at least as many distinct ones as components."""
    if isinstance(data, Tensor):
        data = data.detach().to("cpu", torch.float64).numpy()
    samples = np.asarray(data, dtype=np.float64)
    if samples.ndim not in (1, 2):
        raise ValueError(
            f"expected scalar samples (N,) or vectors (N, D), got {samples.shape}: flatten them"
        )
    bad = np.count_nonzero(~np.isfinite(samples))
    if samples.size == 0 or bad:
        raise ValueError(f"expected finite samples, got {bad} NaN or infinite of {samples.size}")
    distinct = len(np.unique(samples, axis=0))
    if distinct < n_components:
        raise ValueError(
            f"expected at least {n_components} distinct labels for {n_components} components, "
            f"got {distinct}: use fewer components"
        )
    return samples


def _positive(floor: float) -> float:
    if not (floor > 0 and np.isfinite(floor)):
        raise ValueError(f"expected a positive variance_floor, got {floor}")
    return floor


def _raised(covariances: FloatArray, floor: float) -> FloatArray:
    """Raise variances (K, D), or the eigenvalues of covariances (K, D, D), to the floor."""
    if covariances.ndim == 2:
        return np.maximum(covariances, floor)
    eigenvalues, axes = np.linalg.eigh(covariances)
    raised: FloatArray = (axes * np.maximum(eigenvalues, floor)[:, None, :]) @ axes.swapaxes(1, 2)
    return (raised + raised.swapaxes(1, 2)) / 2
