"""Coarser bins as unions of fine ones."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_IMAGES = 20
"""A bin supported by fewer images than this is flagged: its numbers rest on too little."""


@dataclass(frozen=True)
class Binning:
    """Bins of a figure: each is a union of neighbouring scored bins of the evaluation.

    Attributes:
        name: for people: "0.1 m", "0.5 m", "log-spaced, edges on 0.1 m bins".
        low, high: (coarse,) ends of every bin, label units.
        members: (coarse, bins) float64, 1 where the fine bin belongs to the coarse one; sums over
            coarse bins are ``members @ pooled``.
        images: (coarse,) test images with a pixel in the bin.
    """

    name: str
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    members: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Middle of every bin, (coarse,)."""
        return (self.low + self.high) / 2

    @property
    def thin(self) -> npt.NDArray[np.bool_]:
        """Which bins are supported by fewer than `MIN_IMAGES` images, (coarse,)."""
        return self.images < MIN_IMAGES
