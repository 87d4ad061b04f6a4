"""Weights that make rare labels count more: one per histogram bin, looked up per label."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.priors import Histogram

Weighting = Literal["inverse", "sqrt_inverse"]
Smoothing = Literal["gaussian", "triangular", "laplace"]

FloatArray = npt.NDArray[np.float64]

# Bins with a smaller share of the labels are empty: sums in float64 leave residues of this order.
EMPTY_SHARE = 1e-12


def label_weights(
    histogram: Histogram,
    weighting: Weighting = "inverse",
    *,
    clip: tuple[float, float] | None = None,
    smoothing: Smoothing | None = None,
    kernel_size: int = 5,
    kernel_sigma: float = 2.0,
) -> FloatArray:
    """Return one weight per bin: 1 / n or 1 / sqrt(n) of the (clipped, smoothed) counts n.

    In this order, as published: counts are clipped, their square root is taken for
    ``"sqrt_inverse"``, the result is smoothed over neighbouring bins (LDS, label distribution
    smoothing), inverted, and scaled so that the mean weight over the training labels is 1. A bin
    that ends without a count gets the weight of the rarest bin that has one: labels never seen are
    at least as rare.

    Args:
        histogram: Counts of the training labels, in bins of equal width.
        weighting: ``"inverse"`` or ``"sqrt_inverse"``.
        clip: Smallest and largest count, or None. Published for ages: (5, 1000) with
            ``"inverse"``; pixel counts are in the millions and are not clipped.
        smoothing: Kernel of LDS, or None.
        kernel_size: Bins under the kernel, odd; 5 in the published recipes.
        kernel_sigma: Width in bins of the Gaussian and Laplace kernels; 2 in the recipes.

    Returns:
        Weights of shape (B,), finite and positive.

    Raises:
        ValueError: An empty histogram, a clip range that is not 0 < lo <= hi, or a bad kernel.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021 (LDS). At the ends the
    counts are mirrored, as in its depth code.

    Example:
        >>> label_weights(Histogram([0.0, 1.0, 2.0, 3.0], [6, 3, 0])).tolist()
        [0.75, 1.5, 1.5]
    """
    histogram.require_mass()
    if weighting not in ("inverse", "sqrt_inverse"):
        raise ValueError(f"expected weighting inverse or sqrt_inverse, got {weighting!r}")
    total = histogram.total
    rarity = np.where(histogram.counts > EMPTY_SHARE * total, histogram.counts, 0.0)
    if clip is not None:
        if not 0 < clip[0] <= clip[1]:
            raise ValueError(f"expected clip (lo, hi) with 0 < lo <= hi, got {clip}")
        rarity = np.clip(rarity, *clip)
    if weighting == "sqrt_inverse":
        rarity = np.sqrt(rarity)
    if smoothing is not None:
        kernel = smoothing_kernel(smoothing, kernel_size, kernel_sigma)
        padded = np.pad(rarity, len(kernel) // 2, mode="symmetric")
        rarity = np.convolve(padded, kernel, mode="valid")
    rarity = np.where(rarity > 0, rarity, rarity[rarity > 0].min())
    weights: FloatArray = 1 / rarity
    return weights * (total / (histogram.counts @ weights))


def smoothing_kernel(kind: Smoothing, size: int = 5, sigma: float = 2.0) -> FloatArray:
    """Return a symmetric kernel that sums to 1.

        gaussian exp(-k^2 / (2 sigma^2)), laplace exp(-|k| / sigma), triangular 1 - |k| / (half + 1)

    The published code makes its Gaussian by filtering a unit impulse of ``size`` entries whose ends
    are mirrored, which folds the tails back: (.86, .94, 1, .94, .86) relative to the centre for
    size 5 and sigma 2, instead of the (.61, .88, 1, .88, .61) of the formula used here.
    """
    if size < 1 or size % 2 == 0 or not sigma > 0:
        raise ValueError(
            f"expected an odd kernel_size and a positive kernel_sigma, got {size} and {sigma}"
        )
    half = size // 2
    distance = np.abs(np.arange(-half, half + 1)).astype(np.float64)
    if kind == "gaussian":
        kernel = np.exp(-(distance**2) / (2 * sigma**2))
    elif kind == "laplace":
        kernel = np.exp(-distance / sigma)
    elif kind == "triangular":
        kernel = 1 - distance / (half + 1)
    else:
        raise ValueError(f"expected smoothing gaussian, triangular or laplace, got {kind!r}")
    normalised: FloatArray = kernel / kernel.sum()
    return normalised


def bin_per_label(labels: Tensor, edges: Tensor) -> Tensor:
    """Return the number of every label's bin, elementwise, in [0, B), as ``Histogram`` counts it.

    A label on an edge belongs to the bin above it, labels beyond the ends to the end bins. edges
    (B + 1,) are float64 and on the labels' device.
    """
    interior = edges[1:-1].to(labels.dtype)
    # An edge that was rounded down would take in the float32 label just below it.
    upper = torch.nextafter(interior, torch.full_like(interior, torch.inf))
    interior = torch.where(interior.double() < edges[1:-1], upper, interior)
    return torch.bucketize(labels.detach().contiguous(), interior, right=True)
