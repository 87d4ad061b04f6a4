"""The evidence of a histogram whose labels are spread evenly within their bins."""

import numpy as np
import numpy.typing as npt
import torch
from torch.special import log_ndtr

from depthbal.priors.histogram import Histogram

FloatArray = npt.NDArray[np.float64]


def histogram_log_evidence(
    histogram: Histogram, locations: npt.ArrayLike, noise_sigma: float
) -> FloatArray:
    """Log evidence of a piecewise uniform label distribution under Gaussian noise.

        log E(p) = log sum_b q_b [Phi((r_b - p) / sigma) - Phi((l_b - p) / sigma)]

    with the density q_b of bin b = [l_b, r_b]. Point masses at the bins' centres say the same for
    sigma above the bin width; below it they leave holes between the centres, which the labels do
    not have.

    Args:
        histogram: Labels with mass.
        locations: Predictions p, shape (N,), label units.
        noise_sigma: sigma, label units.

    Returns:
        log E(p), shape (N,).

    Example:
        >>> uniform = Histogram([0.0, 10.0], [1])
        >>> histogram_log_evidence(uniform, [5.0, 0.0], 1.0).round(6).tolist()
        [-2.302586, -2.995732]
    """
    occupied = histogram.counts > 0
    edges = np.stack([histogram.edges[:-1][occupied], histogram.edges[1:][occupied]])
    log_density = torch.from_numpy(np.log(histogram.densities[occupied]))
    left, right = torch.from_numpy(edges)[:, None, :]
    parts = []
    points = torch.from_numpy(np.array(locations, dtype=np.float64))
    for part in torch.split(points[:, None], max(1, 1_000_000 // len(log_density))):
        below, above = (left - part) / noise_sigma, (right - part) / noise_sigma
        # Phi is flat far above 0: there the same difference is taken in the lower tail.
        flip = below > 0
        low, high = torch.where(flip, -above, below), torch.where(flip, -below, above)
        log_low, log_high = log_ndtr(low), log_ndtr(high)
        log_mass = log_high + torch.log(-torch.expm1(log_low - log_high))
        parts.append(torch.logsumexp(log_density + log_mass, dim=1))
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)
