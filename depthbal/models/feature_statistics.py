"""Mean and variance of features per label bin, collected in any number of batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Numbers that a step works on at once: what is held besides the sums stays under 200 MB.
CHUNK = 2**22

# A variance is that of a constant where it is no larger than this share of the mean square: sums
# in float64 leave residues of this order.
CONSTANT = 1e-12


@dataclass(frozen=True)
class FeatureMoments:
    """What is known of every bin: count (B,), mean (B, C) and unbiased variance (B, C), float64."""

    count: Tensor
    mean: Tensor
    variance: Tensor


class FeatureStatistics:
    """Sums of features per label bin in float64, whose size does not grow with the data.

    Args:
        bins: Number of bins.
        channels: Numbers per feature.
        device: Where the sums are kept; that of the features.

    Example:
        >>> statistics = FeatureStatistics(bins=2, channels=1)
        >>> statistics.update(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 0, 2]))
        >>> moments = statistics.moments()
        >>> moments.count.tolist(), moments.mean[0].tolist(), moments.variance[0].tolist()
        ([2.0, 0.0], [2.0], [2.0])
    """

    def __init__(self, bins: int, channels: int, device: torch.device | None = None) -> None:
        # one row more than bins, for features without a label
        size = (bins + 1, channels)
        self._count = torch.zeros(bins + 1, dtype=torch.float64, device=device)
        self._sum = torch.zeros(size, dtype=torch.float64, device=device)
        self._squares = torch.zeros(size, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features.

        Args:
            features: (N, C), or dense (N, C, h, w).
            index: int64 (N,), or (N, h, w): the bin of every feature; the number of bins for
                features that count nowhere.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        require_fitting(features, index, self._sum.shape[1])
        self._count += torch.bincount(index.flatten(), minlength=len(self._count))
        for part, bins in chunks(features, index):
            rows = part.movedim(1, -1).reshape(-1, part.shape[1]).double()
            # this form of scatter is ten times as fast on a CPU as index_add
            where = bins.reshape(-1, 1).expand_as(rows)
            self._sum.scatter_add_(0, where, rows)
            self._squares.scatter_add_(0, where, rows * rows)

    def sums(self) -> Tensor:
        """Return everything as one tensor (B + 1, 1 + 2 C), to be added up over processes."""
        return torch.cat((self._count[:, None], self._sum, self._squares), dim=1)

    def set_sums(self, sums: Tensor) -> None:
        """Replace everything by what `sums` returned, or by several of them added up."""
        channels = self._sum.shape[1]
        self._count, self._sum, self._squares = (
            sums[:, 0],
            sums[:, 1 : channels + 1],
            sums[:, channels + 1 :],
        )

    def moments(self) -> FeatureMoments:
        """Return count, mean and variance per bin; 0 where there are too few features for them."""
        count = self._count[:-1]
        number = count[:, None]
        mean = self._sum[:-1] / number.clamp(min=1)
        mean_square = self._squares[:-1] / number.clamp(min=1)
        biased = mean_square - mean**2
        biased = torch.where(biased > CONSTANT * mean_square, biased, 0.0)
        return FeatureMoments(count, mean, biased * number / (number - 1).clamp(min=1))


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors in parts along their first dimension, of about `CHUNK` numbers of the first."""
    first = tensors[0]
    step = max(1, CHUNK // max(1, first[:1].numel()))
    yield from zip(*(torch.split(tensor, step) for tensor in tensors), strict=True)


def require_fitting(features: Tensor, index: Tensor, channels: int) -> None:
    """Check that every feature has an index.

    Raises:
        ValueError: Another number of channels, or an index of another size.
    """
    expected = (features.shape[0], *features.shape[2:])
    if features.ndim < 2 or features.shape[1] != channels or tuple(index.shape) != expected:
        raise ValueError(
            f"expected features (N, {channels}) with index (N,), or (N, {channels}, h, w) with "
            f"(N, h, w); got features {tuple(features.shape)} and index {tuple(index.shape)}"
        )
