"""From a source of pairs to the samples that a network is fed with."""

from typing import Generic, Protocol, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from depthbal.data.checks import check_pair
from depthbal.data.images import normalise, resize_short_side
from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.data.sampler import PADDING
from depthbal.data.transforms import EvalTransform
from depthbal.errors import DataError


class Transform(Protocol):
    """Pre-processing of one pair; the same seed gives the same result."""

    def __call__(self, image: Image, depth: Depth, seed: int) -> tuple[Tensor, Tensor]:
        """Return image float32 (3, H, W), normalised, and depth float32 (1, h, w) in metres."""
        ...


class Sample(TypedDict):
    """One sample: image (3, H, W), depth (1, h, w) in metres with 0 = no depth, what it is."""

    image: Tensor
    depth: Tensor
    index: int
    name: str
    group: str


Item = TypeVar("Item")


class SeededDataset(Dataset[Item], Generic[Item]):
    """Samples addressed by ``index`` or, from `EpochSampler`, by ``(epoch, index)``.

    The random numbers of a sample's augmentation depend on (seed, epoch, index) alone, so they
    are the same for any number of workers and any order. The index `PADDING` gives a sample that
    counts nowhere. A subclass says what a sample is: `__len__`, `sample` and `padding`.

    Args:
        seed: of the augmentation.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, index: int, seed: int) -> Item:
        """Return the sample at a valid index, augmented from this seed."""
        raise NotImplementedError

    def padding(self) -> Item:
        """Return a sample that counts nowhere, its index `PADDING`."""
        raise NotImplementedError

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if index == PADDING:
            return self.padding()
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} lies outside the data set of {len(self)} samples")
        return self.sample(index, sample_seed(self.seed, epoch, index))


class DepthDataset(SeededDataset[Sample]):
    """Load, check and pre-process the pairs of a source; padding is a map without depth.

    Args:
        source: where the pairs come from.
        transform: pre-processing of one pair.
        seed: of the augmentation.

    Raises:
        DataError: on access, when a file is unreadable or its content plainly wrong.
    """

    def __init__(self, source: PairSource, transform: Transform, seed: int = 0) -> None:
        super().__init__(seed)
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int, seed: int) -> Sample:
        """Return the pre-processed pair at an index."""
        image, depth = self.source.load(index)
        name = self.source.name(index)
        check_pair(image, depth, name)
        try:
            pixels, metres = self.transform(image, depth, seed)
        except DataError as error:  # a transform knows the sizes but not the file
            raise DataError(f"{name}: {error}") from error
        group = self.source.group(index)
        return {"image": pixels, "depth": metres, "index": index, "name": name, "group": group}

    def padding(self) -> Sample:
        """Return the first image with a map without depth."""
        first = self[0]
        empty = torch.zeros_like(first["depth"])
        return {**first, "depth": empty, "index": PADDING}


class WholeImages(DepthDataset):
    """Test images as the Eigen protocol sees them: uncropped, the truth at its file's own size.

    Args:
        source: where the pairs come from.
        transform: says to which short side the network's image is resized.
    """

    def __init__(self, source: PairSource, transform: EvalTransform) -> None:
        super().__init__(source, transform)
        self.short_side = transform.short_side

    def sample(self, index: int, seed: int) -> Sample:
        """Return the pair at an index."""
        image, depth = self.source.load(index)
        name = self.source.name(index)
        check_pair(image, depth, name)
        if self.short_side is not None:
            image = resize_short_side(image, self.short_side, nearest=False)
        return {
            "image": normalise(image),
            "depth": torch.from_numpy(depth)[None],
            "index": index,
            "name": name,
            "group": self.source.group(index),
        }


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Mix (seed, epoch, index) into one 32-bit seed without visible patterns between neighbours."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])
