"""From a source of pairs to the samples that a network is fed with."""

from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from depthbal.data.checks import check_pair
from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.data.sampler import PADDING
from depthbal.errors import DataError


class Transform(Protocol):
    """Pre-processing of one pair; the same seed gives the same result."""

    def __call__(self, image: Image, depth: Depth, seed: int) -> tuple[Tensor, Tensor]:
        """Return image float32 (3, H, W), normalised, and depth float32 (1, h, w) in metres."""
        ...


class Sample(TypedDict):
    """One sample: image (3, H, W), depth (1, h, w) in metres with 0 = no depth, its index."""

    image: Tensor
    depth: Tensor
    index: int


class DepthDataset(Dataset[Sample]):
    """Load, check and pre-process the pairs of a source.

    An item is addressed by ``index`` or, from `EpochSampler`, by ``(epoch, index)``; the random
    numbers of its augmentation depend on (seed, epoch, index) alone, so they are the same for
    any number of workers and any order. The index `PADDING` gives a map without depth.

    Args:
        source: where the pairs come from.
        transform: pre-processing of one pair.
        seed: of the augmentation.

    Raises:
        DataError: on access, when a file is unreadable or its content plainly wrong.
    """

    def __init__(self, source: PairSource, transform: Transform, seed: int = 0) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if index == PADDING:
            sample = self[0]
            empty = torch.zeros_like(sample["depth"])
            return {"image": sample["image"], "depth": empty, "index": PADDING}
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} lies outside the data set of {len(self)} samples")
        image, depth = self.source.load(index)
        name = self.source.name(index)
        check_pair(image, depth, name)
        try:
            pixels, metres = self.transform(image, depth, sample_seed(self.seed, epoch, index))
        except DataError as error:  # a transform knows the sizes but not the file
            raise DataError(f"{name}: {error}") from error
        return {"image": pixels, "depth": metres, "index": index}


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Mix (seed, epoch, index) into one 32-bit seed without visible patterns between neighbours."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])
