"""Feature distribution smoothing (FDS): features of rare labels borrow statistics of near ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from depthbal.losses.label_weights import Smoothing, smoothing_kernel
from depthbal.models.feature_statistics import (
    FeatureMoments,
    FeatureStatistics,
    chunks,
    require_fitting,
)

# A variance needs two features.
FEWEST = 2


def smoothing_matrix(bins: int, kernel: npt.ArrayLike) -> Tensor:
    """Return the matrix (bins, bins) that smooths over bins, mirrored at the ends without them.

    The value beyond the last bin is that of the last but one, as published for FDS.

    Example:
        >>> smoothing_matrix(3, [0.25, 0.5, 0.25]).tolist()
        [[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]]
    """
    weights = np.asarray(kernel, dtype=np.float64)
    half = len(weights) // 2
    mirrored = np.pad(np.arange(bins), half, mode="reflect" if bins > 1 else "edge")
    matrix = np.zeros((bins, bins))
    for offset, weight in enumerate(weights):
        np.add.at(matrix, (np.arange(bins), mirrored[offset : offset + bins]), weight)
    return torch.from_numpy(matrix)


def smooth_over_bins(values: Tensor, known: Tensor, matrix: Tensor) -> Tensor:
    """Return the kernel's mean over the bins that are known.

        smoothed_b = sum_b' K_bb' known_b' x_b' / sum_b' K_bb' known_b'

    Args:
        values: (B, C).
        known: bool (B,); values of other bins have no part.
        matrix: K, (B, B), with a positive diagonal.

    Returns:
        (B, C); 0 where no bin under the kernel is known.
    """
    weights = matrix * known
    total = weights.sum(dim=1, keepdim=True)
    known_values = torch.where(known[:, None], values, 0.0)
    return (weights @ known_values) / torch.where(total > 0, total, 1.0)


def calibration_tables(
    mean: Tensor, variance: Tensor, known: Tensor, matrix: Tensor, clip: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift that calibrate a feature of every bin.

        (x - m1) sqrt(clip(v2 / v1)) + m2  =  scale x + shift

    with the bin's own moments m1, v1 and the smoothed ones m2, v2. Where a bin is not known, or a
    channel is constant in it, features stay as they are.

    Args:
        mean: m1, (B, C), float64.
        variance: v1, (B, C), float64.
        known: bool (B,).
        matrix: As for `smooth_over_bins`.
        clip: Smallest and largest v2 / v1.

    Returns:
        Two tensors (B + 1, C), whose last row, for features without a bin, changes nothing.
    """
    smoothed_mean = smooth_over_bins(mean, known, matrix)
    smoothed_variance = smooth_over_bins(variance, known, matrix)
    varies = known[:, None] & (variance > 0)
    ratio = smoothed_variance / torch.where(varies, variance, 1.0)
    scale = torch.where(varies, ratio.clamp(*clip).sqrt(), 1.0)
    shift = torch.where(varies, smoothed_mean - scale * mean, 0.0)
    none = torch.ones_like(scale[:1])
    return torch.cat((scale, none)), torch.cat((shift, 0 * none))


def calibrate(features: Tensor, index: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return scale[index] * features + shift[index].

    The gradient of the features is multiplied by the scale; the tables get none. What is kept for
    the backward pass is the index and not a scale for every feature.

    Args:
        features: (N, C) or (N, C, h, w).
        index: int64 (N,) or (N, h, w): rows of the tables.
        scale: (rows, C).
        shift: (rows, C).

    Returns:
        The features' shape and dtype.

    Example:
        >>> features, index = torch.ones(2, 1), torch.tensor([1, 0])
        >>> calibrate(features, index, torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [5.0]]))
        tensor([[7.],
                [1.]])
    """
    require_fitting(features, index, scale.shape[1])
    calibrated: Tensor = _Calibration.apply(features, index, scale, shift)
    return calibrated


class _Calibration(torch.autograd.Function):
    """`calibrate` with a gradient that looks its factors up again."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(index, scale)
        out = torch.empty_like(features)
        for part, x, bins in chunks(out, features, index):
            part.copy_(torch.addcmul(_rows(shift, bins), x, _rows(scale, bins)))
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        index, scale = ctx.saved_tensors
        out = torch.empty_like(gradient)
        for part, slope, bins in chunks(out, gradient, index):
            part.copy_(slope * _rows(scale, bins))
        return out, None, None, None


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table with the channels where features have them."""
    return table[index].movedim(-1, 1)


class FeatureDistributionSmoothing(nn.Module):
    """Running statistics of features per label bin, and the calibration that they give.

    After every epoch `update` takes the moments of all training features per bin: the first ones
    that a bin has become its running ones, later ones enter with 1 - momentum. `forward` then
    calibrates features by their own bin's moments and those smoothed over bins.

    Bins without two features (they would have no variance) keep what they have, have no part in
    the smoothing of others and are not calibrated. In the published code a bin that was never seen
    enters with mean 0 and variance 1, and one of a single feature with variance 0, into its
    neighbours' statistics.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021, section 3.2. As in that
    paper, an epoch is calibrated by the statistics of the one before. Its code uses the statistics
    of two epochs before, so there the second epoch is not calibrated yet; its clip is (0.1, 10)
    for ages and (0.2, 5) for depth.

    Args:
        edges: Increasing bin edges in label units, (B + 1,).
        channels: C, numbers per feature.
        kernel: Kernel over bins: ``"gaussian"``, ``"triangular"`` or ``"laplace"``.
        kernel_size: Bins under the kernel, odd.
        kernel_sigma: Width of the Gaussian and Laplace kernels in bins.
        momentum: Share of the running statistics that stays in an update, in [0, 1).
        clip: Smallest and largest ratio of smoothed and own variance.

    Shape:
        features (N, C) with index (N,), or (N, C, h, w) with (N, h, w) -> as the features

    Raises:
        ValueError: A momentum, clip or kernel out of range.

    Example:
        >>> fds = FeatureDistributionSmoothing([0.0, 1.0, 2.0], channels=1, kernel_sigma=0.5)
        >>> features, index = torch.tensor([[1.0], [3.0], [6.0], [8.0]]), torch.tensor([0, 0, 1, 1])
        >>> statistics = FeatureStatistics(2, 1)
        >>> statistics.update(features, index)
        >>> fds.update(statistics.moments())
        >>> fds(features, index).flatten()  # the means, 2 and 7, come nearer
        tensor([2.0645, 4.0645, 4.9355, 6.9355])
    """

    edges: Tensor
    passes: Tensor
    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        edges: Sequence[float] | npt.NDArray[np.float64],
        channels: int,
        *,
        kernel: Smoothing = "gaussian",
        kernel_size: int = 5,
        kernel_sigma: float = 2.0,
        momentum: float = 0.9,
        clip: tuple[float, float] = (0.2, 5.0),
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"expected a momentum of at least 0 and below 1, got {momentum}")
        if not 0 < clip[0] <= clip[1]:
            raise ValueError(f"expected clip (lo, hi) with 0 < lo <= hi, got {clip}")
        self.momentum = momentum
        self.clip = (float(clip[0]), float(clip[1]))
        bins = len(edges) - 1
        # copied: the histogram that the edges come from stays its owner's
        self.register_buffer("edges", torch.from_numpy(np.array(edges, dtype=np.float64)))
        self.register_buffer("passes", torch.zeros(bins, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(bins, channels, dtype=torch.float64))
        self.register_buffer("variance", torch.zeros(bins, channels, dtype=torch.float64))
        matrix = smoothing_matrix(bins, smoothing_kernel(kernel, kernel_size, kernel_sigma))
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("scale", torch.ones(bins + 1, channels), persistent=False)
        self.register_buffer("shift", torch.zeros(bins + 1, channels), persistent=False)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.passes)

    def statistics(self) -> FeatureStatistics:
        """Return empty sums for a pass over the training set."""
        return FeatureStatistics(self.bins, self.mean.shape[1], self.mean.device)

    @torch.no_grad()
    def update(self, moments: FeatureMoments) -> None:
        """Take the moments of an epoch's features into the running ones."""
        counted = moments.count >= FEWEST
        keep = torch.where(self.passes > 0, self.momentum, 0.0)[:, None]
        for running, new in ((self.mean, moments.mean), (self.variance, moments.variance)):
            mixed = keep * running + (1 - keep) * new
            running.copy_(torch.where(counted[:, None], mixed, running))
        self.passes += counted
        self.tabulate()

    @torch.no_grad()
    def tabulate(self) -> None:
        """Compute from the running statistics by what features are multiplied and shifted."""
        known = self.passes > 0
        scale, shift = calibration_tables(
            self.mean, self.variance, known, self.get_buffer("matrix"), self.clip
        )
        self.scale.copy_(scale)
        self.shift.copy_(shift)

    def forward(self, features: Tensor, index: Tensor) -> Tensor:
        """Return calibrated features; all of them unchanged before the first update."""
        return calibrate(features, index, self.scale, self.shift)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.tabulate()
