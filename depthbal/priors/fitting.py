"""Fitting Gaussian mixtures to histograms, by weighted EM, and to samples."""

import logging
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp
from torch import Tensor

from depthbal.priors.histogram import FloatArray, Histogram, as_float64

logger = logging.getLogger(__name__)

LARGEST_ERROR = 0.05  # of the log-evidence; a fit that misses it is reported
CELLS_PER_COMPONENT = 32
MAX_STEPS = 500
TOLERANCE = 1e-7  # of the mean log-likelihood per label
TEMPER = 0.15  # of the densities that share out the first components: tails get theirs
UNDERFLOW = 1e-30  # share of every cell that a component keeps, so that none ends without mass

CovarianceType = Literal["full", "diag"]
Mixture = tuple[FloatArray, FloatArray, FloatArray]  # weights, means, (co)variances


class FitReport(NamedTuple):
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


def fit_histogram(
    histogram: Histogram, n_components: int, floor: float | None, noise_sigma: float
) -> tuple[Mixture, FitReport]:
    """Return the mixture of largest likelihood, means increasing, and how close its evidence is.

    Expectation maximisation (Dempster, Laird and Rubin, 1977) over cells of mass g, centre x and
    width h, which contribute g (x - mu_k)^2 + g h^2 / 12 to the spread of component k.
    """
    histogram.require_mass()
    occupied = histogram.counts > 0
    if floor is None:
        floor = float(histogram.widths[occupied].min()) ** 2 / 12
    require_positive(variance_floor=floor, noise_sigma=noise_sigma)
    # The occupied bins, cut into equal cells: their mass, centres and variance inside, (N,).
    pieces = -(-CELLS_PER_COMPONENT * n_components // int(occupied.sum()))
    width = np.repeat(histogram.widths[occupied] / pieces, pieces)
    inside = np.tile(np.arange(pieces) + 0.5, int(occupied.sum()))
    centers = np.repeat(histogram.edges[:-1][occupied], pieces) + width * inside
    mass = np.repeat(histogram.counts[occupied] / histogram.total / pieces, pieces)
    mixture = _start(histogram, n_components, floor)
    previous = -np.inf
    for _ in range(MAX_STEPS):
        mixture, likelihood = _step(mixture, mass, centers, width**2 / 12, floor)
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


def _start(histogram: Histogram, n_components: int, floor: float) -> Mixture:
    """Cut the label range into slabs of equal tempered mass: the tail, half of it, gets some."""
    occupied = histogram.counts > 0
    density = (histogram.counts / histogram.widths)[occupied]
    tempered = np.cumsum((density / density.max()) ** TEMPER * histogram.widths[occupied])
    below = np.concatenate([[0.0], tempered[:-1]])
    left, right = histogram.edges[:-1][occupied], histogram.edges[1:][occupied]
    shares = np.stack([below, tempered], 1).ravel() / tempered[-1]
    wanted = np.arange(n_components + 1) / n_components
    slabs = np.interp(wanted, shares, np.stack([left, right], 1).ravel())
    cumulative = np.concatenate([[0.0], np.cumsum(histogram.counts) / histogram.total])
    weights = np.diff(np.interp(slabs, histogram.edges, cumulative)) + UNDERFLOW
    return weights, (slabs[1:] + slabs[:-1]) / 2, np.maximum(np.diff(slabs) ** 2 / 12, floor)


def _step(
    mixture: Mixture, mass: FloatArray, centers: FloatArray, blur: FloatArray, floor: float
) -> tuple[Mixture, float]:
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


def _compare(mixture: Mixture, histogram: Histogram, noise_sigma: float) -> FitReport:
    """Compare log E with that of labels spread evenly within their bins."""
    occupied = np.flatnonzero(histogram.counts)
    low, high = histogram.edges[occupied[0]], histogram.edges[occupied[-1] + 1]
    points = int(np.clip(8 * (high - low) / noise_sigma, 256, 2048))  # 8 per sigma
    places = np.linspace(low, high, points)[:, None]
    ends = [
        (side[occupied] - places) / noise_sigma for side in (histogram.edges, histogram.edges[1:])
    ]
    # Phi is flat far above 0: there the same difference is taken in the lower tail.
    flip = ends[0] > 0
    lower, upper = np.where(flip, -ends[1], ends[0]), np.where(flip, -ends[0], ends[1])
    log_upper = log_ndtr(upper)
    log_mass = log_upper + np.log(-np.expm1(log_ndtr(lower) - log_upper))
    expected = logsumexp(np.log(histogram.densities[occupied]) + log_mass, axis=1)
    weights, means, variances = mixture
    blurred = variances + noise_sigma**2
    log_normal = -0.5 * ((places - means) ** 2 / blurred + np.log(2 * np.pi * blurred))
    errors = np.abs(logsumexp(np.log(weights) + log_normal, axis=1) - expected)
    worst = int(errors.argmax())
    return FitReport(noise_sigma, float(errors[worst]), float(places[worst, 0]))


def fit_samples(
    data: npt.ArrayLike | Tensor,
    n_components: int,
    covariance_type: CovarianceType,
    floor: float | None,
    seed: int,
) -> Mixture:
    """Return weights, means and (co)variances, no variance along any axis below the floor."""
    from sklearn.mixture import GaussianMixture as Estimator

    samples = as_float64(data)
    if covariance_type not in get_args(CovarianceType) or not np.isfinite(samples).all():
        raise ValueError(
            f"expected finite samples and covariance_type 'full' or 'diag', got {covariance_type!r}"
        )
    # Relative to their mean: variances are differences of squares, which an offset would swallow.
    offset = samples.mean(axis=0)
    centred = (samples - offset).reshape(len(samples), -1)
    if floor is None:
        floor = 1e-6 * float(np.mean(np.var(centred, axis=0)))
        if floor == 0:
            raise ValueError("expected labels that vary, got equal ones: set variance_floor")
    require_positive(variance_floor=floor)
    estimator = Estimator(
        n_components,
        covariance_type="diag" if samples.ndim == 1 else covariance_type,
        reg_covar=floor * 1e-3,
        init_params="kmeans",
        max_iter=1000,
        tol=1e-4,
        random_state=seed,
    )
    estimator.fit(centred)
    order = np.argsort(estimator.means_[:, 0])
    weights, means = estimator.weights_[order], estimator.means_[order]
    covariances = estimator.covariances_[order]
    if covariances.ndim == 3:
        eigenvalues, axes = np.linalg.eigh(covariances)
        covariances = (axes * np.maximum(eigenvalues, floor)[:, None]) @ axes.swapaxes(1, 2)
        return weights, means + offset, (covariances + covariances.swapaxes(1, 2)) / 2
    shape = (n_components, *samples.shape[1:])
    return weights, means.reshape(shape) + offset, np.maximum(covariances, floor).reshape(shape)


def require_positive(**numbers: float) -> None:
    """Raise a ValueError for a number that is not positive and finite."""
    for name, number in numbers.items():
        if not 0 < number < np.inf:
            raise ValueError(f"expected a positive, finite {name}, got {number}")
