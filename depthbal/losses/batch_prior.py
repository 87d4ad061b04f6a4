"""The batch's own targets as a mixture: the prior of BMC."""

import torch
from torch import Tensor

from depthbal.priors import GaussianMixture

# Distinct targets that are always kept apart: 8-bit depth has at most 256.
MAX_GROUPS = 512
# A bin of width h that is represented by its count, mean and variance changes the log-evidence at
# distance d by at most 0.096 h^3 d^3 / (6 sigma^6): 0.096 h^3 is the largest third central moment
# on a bin. A width of 0.05 sigma^2 / (range of the targets) keeps this below 2e-6 for every
# prediction in the range; sigma / 128 does so wherever a target lies within 6 sigma, and is wider
# where sigma is small.
RANGE_RESOLUTION = 0.05
BINS_PER_SIGMA = 128


def batch_prior(targets: Tensor, noise_sigma: Tensor) -> GaussianMixture | None:
    """Return the targets as a weighted mixture, merged where that changes nothing that matters.

    Equal targets become one point mass with their count as weight, which is exact. More than 512
    distinct ones are merged into bins by count, mean and variance; the bins are so narrow beside
    sigma that the log-evidence changes by less than 2e-6 where a prediction lies in the targets'
    range and within 6 sigma of one of them.

    Args:
        targets: Flat valid targets, label units.
        noise_sigma: Noise scale, one element.

    Returns:
        The mixture, or None without targets.

    Example:
        >>> batch_prior(torch.tensor([1.0, 3.0, 1.0]), torch.tensor(1.0)).weights
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """
    if targets.numel() == 0:
        return None
    values, counts = torch.unique(targets.detach(), return_counts=True)
    values, counts = values.double(), counts.double()
    if len(values) > MAX_GROUPS:
        spread = float(values[-1] - values[0])
        relative = spread / float(noise_sigma)
        bins = int(min(relative**2 / RANGE_RESOLUTION, relative * BINS_PER_SIGMA)) + 1
        if bins < len(values):
            return _binned(values, counts, bins)
    return GaussianMixture.unchecked(counts / counts.sum(), values, torch.zeros_like(values))


def _binned(values: Tensor, counts: Tensor, bins: int) -> GaussianMixture:
    """Merge sorted values into equal bins over their range, by count, mean and variance."""
    low, high = values[0], values[-1]
    index = ((values - low) * (bins / (high - low))).long().clamp_(max=bins - 1)
    zeros = values.new_zeros(bins)
    mass = zeros.index_add(0, index, counts)
    mean = zeros.index_add(0, index, counts * values) / mass
    variance = zeros.index_add(0, index, counts * (values - mean[index]) ** 2) / mass
    occupied = mass > 0
    weights = mass[occupied] / mass.sum()
    return GaussianMixture.unchecked(weights, mean[occupied], variance[occupied])
