"""Weights that make rare labels count more: one per histogram bin, looked up per label."""

from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from depthbal.losses.base import RegressionLoss, require_one_of
from depthbal.losses.baselines import ErrorKind
from depthbal.losses.buffers import RequiredBuffers
from depthbal.priors import GaussianMixture, Histogram
from depthbal.priors.histogram import FloatArray, bin_per_label

Weighting = Literal["inverse", "sqrt_inverse"]
Smoothing = Literal["gaussian", "triangular", "laplace"]

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

    In this order, as published: counts are clipped, rooted, smoothed over neighbouring bins (LDS,
    label distribution smoothing), inverted, and scaled so that the mean weight over the training
    labels is 1. A bin that ends without a count gets the weight of the rarest bin that has one.

    Args:
        histogram: Counts of the training labels, in bins of equal width.
        weighting: ``"inverse"`` or ``"sqrt_inverse"``.
        clip: Smallest and largest count, or None. Published for ages: (5, 1000) with
            ``"inverse"``; pixel counts are in the millions and are not clipped.
        smoothing: Kernel of LDS, or None.
        kernel_size: Bins under the kernel, odd; 5 in the published recipes.
        kernel_sigma: Width in bins of the Gaussian and Laplace kernels; 2 in the recipes.

    Returns:
        Weights of shape (B,), finite and positive. Bad arguments are a ValueError.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021 (LDS). At the ends the
    counts are mirrored, as in its depth code.

    Example:
        >>> label_weights(Histogram([0.0, 1.0, 2.0, 3.0], [6, 3, 0])).tolist()
        [0.75, 1.5, 1.5]
    """
    histogram.require_mass()
    require_one_of("weighting", weighting, ("inverse", "sqrt_inverse"))
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
    """Return a symmetric kernel that sums to 1, as the published code has it.

    It folds the Gaussian's tails back: for size 5 and sigma 2 (.86, .94, 1, ...) relative to the
    centre, instead of the (.61, .88, 1, ...) of exp(-k^2 / (2 sigma^2)).
    """
    if size < 1 or size % 2 == 0 or not sigma > 0:
        raise ValueError(
            f"expected an odd kernel_size and a positive kernel_sigma, got {size} and {sigma}"
        )
    half = size // 2
    distance = np.abs(np.arange(-half, half + 1)).astype(np.float64)
    kernels = {
        "gaussian": np.exp(-(distance**2) / (2 * sigma**2)),
        "triangular": 1 - distance / (half + 1),
        "laplace": np.exp(-distance / sigma),
    }
    require_one_of("smoothing", kind, tuple(kernels))
    return np.asarray(kernels[kind] / kernels[kind].sum())


class ReweightedLoss(RegressionLoss):
    """Squared or absolute error times a weight that grows with the rarity of the label.

        w(y) (p - y)^2  or  w(y) |p - y|,  w = ``label_weights`` of the training histogram

    The classical answer to imbalance: inverse frequency, its square root, clipped counts, and LDS,
    which smooths the counts over neighbouring bins. The mean is over the entries that count, not
    over their weights, which average to 1 over the training labels.

    Args:
        prior: Histogram of the training labels, a file that ``Histogram.save`` wrote, or None: then
            ``set_prior(histogram)`` or ``load_state_dict`` must give it before use.
        error: ``"squared"`` or ``"absolute"``.
        weighting, clip, smoothing, kernel_size, kernel_sigma: See ``label_weights``.
        options: ``reduction`` and ``label_range`` of ``RegressionLoss``.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021.

    Example:
        >>> loss = ReweightedLoss(Histogram([0.0, 1.0, 2.0], [6, 2]))
        >>> round(loss(torch.tensor([1.5, 1.5]), torch.tensor([0.5, 1.5])).item(), 4)
        0.3333
    """

    balances = True

    def __init__(
        self,
        prior: Histogram | str | None = None,
        *,
        error: ErrorKind = "squared",
        weighting: Weighting = "inverse",
        clip: tuple[float, float] | None = None,
        smoothing: Smoothing | None = None,
        kernel_size: int = 5,
        kernel_sigma: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(event_dim=0, **options)
        require_one_of("error", error, ("squared", "absolute"))
        self.error = error
        self._weights_of = partial(
            label_weights,
            weighting=weighting,
            clip=clip,
            smoothing=smoothing,
            kernel_size=kernel_size,
            kernel_sigma=kernel_sigma,
        )
        self.init_args |= {"error": error, **self._weights_of.keywords}
        # Wrong arguments are reported now and not when the histogram comes.
        self._weights_of(Histogram([0.0, 1.0], [1.0]))
        self._prior = RequiredBuffers("edges", "counts", "weights")
        if prior is not None:
            self.set_prior(Histogram.load(prior) if isinstance(prior, str) else prior)

    @property
    def prior(self) -> Histogram | None:
        """The training histogram, or None while it is unset."""
        if self._prior.is_unset:
            return None
        edges, counts = (self._prior.get(name).cpu().numpy() for name in ("edges", "counts"))
        return Histogram(edges, counts)

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Take the histogram of the training labels; a mixture, without bins, is a ValueError."""
        if not isinstance(prior, Histogram):
            raise ValueError(
                f"expected a Histogram to weight its bins, got a {type(prior).__name__}"
            )
        arrays = (prior.edges, prior.counts, self._weights_of(prior))
        self._prior.set(*(torch.from_numpy(array) for array in arrays))

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weighted error of every entry."""
        edges, weights = (self._prior.get(name).to(target.device) for name in ("edges", "weights"))
        distance = preds - target
        error = distance**2 if self.error == "squared" else distance.abs()
        return weights.to(target.dtype)[bin_per_label(target, edges)] * error
