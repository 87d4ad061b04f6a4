"""Fitting Gaussian mixtures to histograms and samples."""

import logging
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.priors.binned_em import ScalarMixture, fit_bins
from depthbal.priors.histogram import Histogram
from depthbal.priors.refinement import Evidence, FitReport, refine

logger = logging.getLogger(__name__)

LARGEST_ERROR = 0.05  # of the log-evidence; a fit that misses it is refined, then reported

CovarianceType = Literal["full", "diag"]
FloatArray = npt.NDArray[np.float64]


def fit_histogram(
    histogram: Histogram, n_components: int, floor: float | None, noise_sigma: float
) -> tuple[ScalarMixture, FitReport]:
    """Return a mixture whose evidence follows the histogram's, and how closely it does.

    Raises:
        ValueError: No mass, or a noise scale or floor that is not positive.
    """
    histogram.require_mass()
    if not (noise_sigma > 0 and np.isfinite(noise_sigma)):
        raise ValueError(f"expected a positive, finite noise_sigma, got {noise_sigma}")
    if floor is None:
        floor = float(histogram.widths[histogram.counts > 0].min()) ** 2 / 12
    mixture = fit_bins(histogram, n_components, _positive(floor))
    evidence = Evidence.of(histogram, noise_sigma)
    report = evidence.report(mixture, refined=False)
    if report.largest_error > LARGEST_ERROR:
        refined = refine(mixture, evidence, floor)
        if refined is not mixture:
            mixture, report = refined, evidence.report(refined, refined=True)
    if report.largest_error > LARGEST_ERROR:
        logger.warning(
            "a mixture of %d components misses the log-evidence of its histogram by up to %.2g "
            "(at %.3g, noise sigma %.3g): use more components, a larger sigma, or BNILoss, which "
            "needs no fit",
            *(n_components, report.largest_error, report.at, noise_sigma),
        )
    return mixture, report


def fit_samples(
    data: npt.ArrayLike | Tensor,
    n_components: int,
    covariance_type: CovarianceType,
    floor: float | None,
    seed: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weights, means and (co)variances, no variance along any axis below the floor.

    Raises:
        ValueError: Samples that are neither (N,) nor (N, D) or not finite, fewer distinct samples
            than components, or a floor that is not positive.
    """
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
    covariances = raise_to_floor(estimator.covariances_[order], floor)
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


def raise_to_floor(covariances: FloatArray, floor: float) -> FloatArray:
    """Raise variances (K, D), or the eigenvalues of covariances (K, D, D), to the floor."""
    if covariances.ndim == 2:
        return np.maximum(covariances, floor)
    eigenvalues, axes = np.linalg.eigh(covariances)
    raised: FloatArray = (axes * np.maximum(eigenvalues, floor)[:, None, :]) @ axes.swapaxes(1, 2)
    return (raised + raised.swapaxes(1, 2)) / 2
