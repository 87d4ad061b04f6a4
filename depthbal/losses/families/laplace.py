"""Laplace noise: the balanced L1 loss and its read-out."""

from typing import Unpack

import torch
from torch import Tensor

from depthbal.losses.families.base import EvidenceOptions, NoiseFamily
from depthbal.losses.families.laplace_evidence import laplace_log_evidence
from depthbal.losses.kernel.evidence import compute_dtype
from depthbal.priors import GaussianMixture


class LaplaceFamily(NoiseFamily):
    """Noise density f(r) = exp(-|r| / b) / (2 b): the balanced L1 loss.

        L(p, y) = |y - p| / b + log sum_k w_k exp(-|mu_k - p| / b)

    for a prior of point masses, which BNI and BMC have; times b it compares with the absolute
    error. The scale b is the noise's mean absolute error, its standard deviation is b sqrt(2).
    Left or right of all masses the loss is constant: a location that far says no more than that
    the label lies at that end of the range, so the gradient is 0 there.

    Source: Theorem 1 of Balanced MSE (Ren et al., CVPR 2022), which holds for any density; the
    paper works out the Gaussian only, so that this goes beyond it.

    Example:
        >>> LaplaceFamily().log_density(torch.tensor(-2.0), torch.tensor(1.0))  # -2 - log 2
        tensor(-2.6931)
    """

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return |r| / b."""
        return residual.abs() / sigma

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log 2 b."""
        return (2 * sigma).log()

    def unit(self, sigma: Tensor) -> Tensor:
        """Return b, which turns the energy into the absolute error."""
        return sigma

    def log_evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        sigma: Tensor,
        **options: Unpack[EvidenceOptions],
    ) -> Tensor:
        """Return ``laplace_log_evidence``: point masses and scalar labels only."""
        return laplace_log_evidence(preds, prior, sigma, **options)

    def readout(self, preds: Tensor, sigma: Tensor, label_range: tuple[float, float]) -> Tensor:
        """Return ``truncated_laplace_mean``."""
        return truncated_laplace_mean(preds, sigma, label_range)


def truncated_laplace_mean(
    preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float]
) -> Tensor:
    """Return the mean of the density exp(-|y - p| / b) truncated to the label range, elementwise.

        p + b [g(B) - g(A)] / (2 - exp(-A) - exp(-B)),   g(x) = 1 - (1 + x) exp(-x)

    with A = (p - lo) / b and B = (hi - p) / b for p in the range. It grows with p there; for p
    outside, the density on the range is the same as for p at the nearer end, and so is the mean.

    Args:
        preds: Locations p of any shape, label units.
        noise_sigma: Scale b > 0 in label units, one element or the shape of ``preds``.
        label_range: Ends (lo, hi) of the label range in label units.

    Returns:
        Labels in (lo, hi), of the shape of ``preds``, in float32 or float64. Computed in float64,
        without a gradient: it is a prediction and not part of the loss.

    Raises:
        ValueError: A range that is not increasing.

    Source: direct integration. It is the balanced posterior mean under Laplace noise, as the
    truncated-normal mean is under the Gaussian noise of Balanced MSE, and not in the paper.

    Example:
        >>> truncated_laplace_mean(torch.tensor([0.0, 5.0, 99.0]), 1.0, (0.0, 10.0))
        tensor([0.9995, 5.0000, 9.0005])
    """
    low, high = label_range
    if not low < high:
        raise ValueError(f"expected label_range (lo, hi) with lo < hi, got {label_range}")
    location = preds.detach().double().clamp(low, high)
    scale = torch.as_tensor(noise_sigma, dtype=torch.float64, device=preds.device).detach()
    left, right = (location - low) / scale, (high - location) / scale
    left_mass, right_mass = -torch.expm1(-left), -torch.expm1(-right)
    right_moment = right_mass - right * torch.exp(-right)
    moment = right_moment - (left_mass - left * torch.exp(-left))
    mean = location + scale * moment / (left_mass + right_mass)
    return mean.clamp(low, high).to(compute_dtype(preds))
