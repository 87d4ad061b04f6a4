"""The batch's own targets as a mixture: the prior of BMC."""

import torch
from torch import Tensor

from depthbal.priors import GaussianMixture

# Distinct targets that are always kept apart: 8-bit depth has at most 256.
MAX_GROUPS = 512
# Bin width times label range over sigma^2. The log-evidence of a bin that is represented by its
# count, mean and variance errs by at most 0.096 x^3 / 6 (the largest third central moment on a bin
# of width h is 0.096 h^3), so 0.05 keeps it below 2e-6.
BIN_RESOLUTION = 0.05


def batch_prior(targets: Tensor, noise_sigma: Tensor) -> GaussianMixture | None:
    """Return the targets as a weighted mixture, merged where that changes nothing that matters.

    Equal targets become one point mass with their count as weight, which is exact. More than 512
    distinct ones are merged into bins by count, mean and variance; the bins are so narrow beside
    sigma^2 that the log-evidence of any prediction within the targets' range changes by less than
    2e-6.

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
        bins = int(spread**2 / (BIN_RESOLUTION * float(noise_sigma) ** 2)) + 1
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
