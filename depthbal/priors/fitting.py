"""Fitting Gaussian mixtures to histograms and samples by expectation maximisation."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.priors.histogram import Histogram

QUANTILES_PER_COMPONENT = 1024

CovarianceType = Literal["full", "diag"]
FloatArray = npt.NDArray[np.float64]


def representatives(
    data: Histogram | npt.ArrayLike | Tensor, n_components: int
) -> tuple[FloatArray, float]:
    """Return samples (N,) or (N, D) that stand for the data, and the default variance floor.

    scikit-learn's estimator takes no sample weights, so a histogram is represented by its
    equal-mass quantiles.

    Raises:
        ValueError: No mass, NaN or infinite samples, or samples that are neither (N,) nor (N, D).
    """
    if isinstance(data, Histogram):
        count = QUANTILES_PER_COMPONENT * n_components
        samples = data.quantiles((np.arange(count) + 0.5) / count)
        return samples, float(np.mean(data.widths)) ** 2 / 12
    if isinstance(data, Tensor):
        data = data.detach().to("cpu", torch.float64).numpy()
    samples = np.asarray(data, dtype=np.float64)
    if samples.ndim not in (1, 2):
        raise ValueError(
            f"expected scalar samples (N,) or vectors (N, D), got {samples.shape}: flatten them"
        )
    if samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError("expected finite samples, got none, NaN or infinite ones")
    return samples, max(1e-6 * float(np.mean(np.var(samples, axis=0))), np.finfo(np.float64).tiny)


def expectation_maximisation(
    samples: FloatArray, n_components: int, covariance_type: CovarianceType, floor: float, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weights, means and (co)variances, no variance along any axis below the floor.

    Raises:
        ValueError: Fewer distinct samples than components.
    """
    from sklearn.mixture import GaussianMixture as Estimator

    distinct = len(np.unique(samples, axis=0))
    if distinct < n_components:
        raise ValueError(
            f"expected at least {n_components} distinct labels for {n_components} components, "
            f"got {distinct}: use fewer components"
        )
    estimator = Estimator(
        n_components,
        covariance_type="diag" if samples.ndim == 1 else covariance_type,
        reg_covar=floor * 1e-3,
        init_params="kmeans",
        max_iter=1000,
        tol=1e-4,
        random_state=seed,
    )
    estimator.fit(samples.reshape(len(samples), -1))
    order = np.argsort(estimator.means_[:, 0])
    weights, means = estimator.weights_[order], estimator.means_[order]
    covariances = raise_to_floor(estimator.covariances_[order], floor)
    if samples.ndim == 1:
        return weights, means[:, 0], covariances[:, 0]
    return weights, means, covariances


def raise_to_floor(covariances: FloatArray, floor: float) -> FloatArray:
    """Raise variances (K, D), or the eigenvalues of covariances (K, D, D), to the floor."""
    if covariances.ndim == 2:
        return np.maximum(covariances, floor)
    eigenvalues, axes = np.linalg.eigh(covariances)
    raised: FloatArray = (axes * np.maximum(eigenvalues, floor)[:, None, :]) @ axes.swapaxes(1, 2)
    return (raised + raised.swapaxes(1, 2)) / 2
