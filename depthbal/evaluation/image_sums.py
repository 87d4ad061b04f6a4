"""Sums per image and bin, kept for the bins that an image has."""

import numpy as np
import numpy.typing as npt
from torch import Tensor


class ImageSums:
    """Collects (images, bins, terms) sums batch by batch; empty bins of an image take no memory.

    An indoor image fills about a third of 100 bins, a face one of 121.

    Args:
        count: position of the term "count".

    Example:
        >>> import torch
        >>> kept = ImageSums(count=0)
        >>> kept.add(torch.tensor([[[2.0, 3.0], [0.0, 0.0]]]).double())
        >>> kept.dense().tolist()
        [[[2.0, 3.0], [0.0, 0.0]]]
    """

    def __init__(self, count: int = 0) -> None:
        self._count = count
        self._filled: list[npt.NDArray[np.bool_]] = []
        self._values: list[npt.NDArray[np.float64]] = []

    def add(self, sums: Tensor) -> None:
        """Add the sums of a batch of images."""
        values = sums.cpu().numpy()
        filled = values[..., self._count] > 0
        self._filled.append(filled)
        self._values.append(values[filled])

    def dense(self) -> npt.NDArray[np.float64]:
        """Return all sums as (images, bins, terms), newly allocated."""
        images = sum(map(len, self._filled))
        out = np.zeros((images, self._filled[0].shape[1], self._values[0].shape[1]))
        first = 0
        for filled, values in zip(self._filled, self._values, strict=True):
            out[first : first + len(filled)][filled] = values
            first += len(filled)
        return out
