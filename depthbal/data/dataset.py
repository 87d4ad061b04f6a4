"""From a source of pairs to the samples that a network is fed with, checked on the way."""

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from depthbal.data.images import Depth, Image
from depthbal.data.loader import PADDING
from depthbal.data.pairs import PairSource
from depthbal.errors import DataError

PLAUSIBLE_METRES = (0.1, 100.0)
# A lens cap or a hand leaves a few odd values; fewer valid pixels than this share prove no unit.
_MIN_SHARE = 0.01
_SAMPLED = 24  # pairs that a split is judged by before training

Item = TypeVar("Item")
Transform = Callable[[Image, Depth, int], tuple[Tensor, Tensor]]
"""Image, depth and seed -> image float32 (3, H, W), normalised, and depth (1, h, w) in metres."""


class SeededDataset(Dataset[Item], Generic[Item]):
    """Samples addressed by ``index`` or, from `EpochSampler`, by ``(epoch, index)``.

    The random numbers of a sample's augmentation depend on (seed, epoch, index) alone, so they
    are the same for any number of workers and any order. The index `PADDING` gives a sample that
    counts nowhere. A subclass says what a sample is: `__len__`, `sample` and `padding`.
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
        # neighbours without visible patterns
        mixed = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)
        return self.sample(index, int(mixed[0]))


class DepthDataset(SeededDataset[dict[str, Any]]):
    """Load, check and pre-process the pairs of a source.

    Samples are dictionaries: image (3, H, W), depth (1, h, w) in metres with 0 = no depth, index,
    name, group. Padding is a map without depth.

    Args:
        source: where the pairs come from.
        transform: from image, depth and a seed to the two tensors.
        seed: of the augmentation.

    Raises:
        DataError: on access, when a file is unreadable or its content plainly wrong.
    """

    def __init__(self, source: PairSource, transform: Transform, seed: int = 0) -> None:
        super().__init__(seed)
        self.source, self.transform = source, cast(Any, transform)

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int, seed: int) -> dict[str, Any]:
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

    def depth(self, index: int) -> Tensor:
        """Return the depth alone, (1, h, w) without augmentation; no image is decoded."""
        depth = self.source.load_depth(index)
        check_depth(depth, self.source.name(index))
        return cast(Tensor, self.transform.depth(depth))

    def padding(self) -> dict[str, Any]:
        """Return the first image with a map without depth."""
        first = self[0]
        return {**first, "depth": torch.zeros_like(first["depth"]), "index": PADDING}


def check_pair(image: Image, depth: Depth, name: str) -> None:
    """Check shapes and types of a pair, and that its depth is finite and plausibly in metres."""
    arrays = depth, image
    if image.shape != (*depth.shape, 3) or [a.dtype for a in arrays] != [np.float32, np.uint8]:
        found = [f"{' x '.join(map(str, array.shape))} of {array.dtype}" for array in arrays]
        raise DataError(
            f"{name}: the depth map is {found[0]} and its image {found[1]}; expected both of one "
            "size, H x W of float32 and H x W x 3 of uint8"
        )
    check_depth(depth, name)


def check_depth(depth: Depth, name: str) -> None:
    """Check that a depth map is finite, not negative and not in a wrong unit."""
    high = float(depth.max())  # NaN and infinity survive both
    if not (depth.min() >= 0 and high < np.inf):
        wrong = depth[~((depth >= 0) & np.isfinite(depth))]
        raise DataError(
            f"{name}: {wrong.size} of {depth.size} depth values are NaN, infinite or negative "
            f"({wrong[0]:g}); write 0 where there is no depth, or list the value in invalid"
        )
    nearest, farthest = PLAUSIBLE_METRES
    if nearest <= high <= farthest:
        return
    valid = depth[depth > 0]
    if valid.size <= _MIN_SHARE * depth.size or ((valid >= nearest) & (valid <= farthest)).any():
        return
    median = float(np.median(valid))
    raise DataError(
        f"{name}: all {valid.size} valid depths lie outside {nearest:g} to {farthest:g} m (median "
        f"{median:g} m), so the unit is wrong; set scale to "
        f"{10.0 ** -round(math.log10(median / 2)):g} times what it is now"
    )


def check_split(data: DepthDataset, min_depth: float, split: str) -> None:
    """Judge a split, before training, by pairs spread over it and pre-processed without chance."""
    if len(data) == 0:
        raise DataError(f"the {split} split is empty; expected at least one pair")
    chosen = np.unique(np.linspace(0, len(data) - 1, _SAMPLED).round().astype(int)).tolist()
    shapes, any_valid = {}, False
    for sample in (data[index] for index in chosen):
        shapes[tuple(sample["image"].shape[1:])] = sample["name"]
        any_valid = any_valid or bool((sample["depth"] >= min_depth).any())
    if len(shapes) > 1:
        listed = ", ".join(f"{name}: {h} x {w}" for (h, w), name in shapes.items())
        raise DataError(
            f"images of the {split} split differ in size ({listed}) and cannot form a batch; "
            "set short_side and crop_size"
        )
    if not any_valid:
        raise DataError(
            f"the {split} split has no pixel with depth of at least {min_depth:g} m in "
            f"{len(chosen)} pairs; check scale and invalid, or lower min_depth"
        )
