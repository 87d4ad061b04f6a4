"""Fitting a scalar Gaussian mixture to the bins of a histogram by weighted EM."""

import numpy as np
import numpy.typing as npt

from depthbal.priors.histogram import Histogram

FloatArray = npt.NDArray[np.float64]
ScalarMixture = tuple[FloatArray, FloatArray, FloatArray]  # weights, means, variances: (K,) each

CELLS_PER_COMPONENT = 32
MAX_STEPS = 500
TOLERANCE = 1e-7  # of the mean log-likelihood per label
TEMPER = 0.15  # of the densities that share out the first components: tails get theirs
UNDERFLOW = 1e-30  # share of every cell that a component keeps, so that none ends without mass


def fit_bins(histogram: Histogram, n_components: int, floor: float) -> ScalarMixture:
    """Return the mixture of largest likelihood for labels spread evenly within their bins.

    Expectation maximisation (Dempster, Laird and Rubin, 1977) with weighted data: a cell of mass
    g, centre x and width h contributes g (x - mu_k)^2 + g h^2 / 12 to the spread of component k.
    It needs no samples and no random start: the components begin at quantiles of the tempered
    histogram, so that the tail, which has little mass but half of the label range, gets some.

    Args:
        histogram: Labels with mass.
        n_components: K.
        floor: Smallest variance of a component.

    Returns:
        Weights, means (increasing) and variances, shape (K,) each.
    """
    mass, centers, blur = _cells(histogram, CELLS_PER_COMPONENT * n_components)
    mixture = _start(histogram, n_components, floor)
    previous = -np.inf
    for _ in range(MAX_STEPS):
        mixture, likelihood = _step(mixture, mass, centers, blur, floor)
        if likelihood - previous < TOLERANCE:
            break
        previous = likelihood
    weights, means, variances = mixture
    order = np.argsort(means)
    return weights[order] / weights.sum(), means[order], variances[order]


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
