"""From a source of pairs to the samples that a network is fed with, checked on the way."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, default_collate

from depthbal.data.images import Depth, Image, measured, only_depth
from depthbal.data.loader import PADDING
from depthbal.data.pairs import PairSource
from depthbal.errors import DataError
from depthbal.evaluation import DEPTH, Label

logger = logging.getLogger("depthbal")

_SAMPLED = 24  # pairs that a split is judged by before training
_SHOWN = 0.01  # of the pixels: what is less is not worth a word
_RANGE = "if they are right, change --data.depth_range"
_UNITS = {"1": 1, "1/256": 1 / 256, "0.01": 0.01, "0.001": 0.001, "1/4000": 1 / 4000}
_UNITS |= {"1/5000": 1 / 5000, "0.0001": 1e-4, "1000": 1000, "0.3048": 0.3048, "0.0254": 0.0254}
"""Metres per unit that depth files are known to have, by how they are written."""

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
    name, group. Padding is a map without depth. Where there can be pixels that are only known to
    lie beyond the limit, `beyond`, a sample has them too: a map "beyond" of booleans. Their depth
    in it is that of pixels without depth, and inf in the maps of `truth` and `depth`. `none`, 0 or
    the source's, stands where there is no depth.

    Args:
        source: where the pairs come from.
        transform: from image, depth and a seed to the two tensors.
        seed: of the augmentation.
        limit: metres beyond which there is no depth; NaN, infinity and what is negative are none.
        measured_beyond: whether depths beyond the limit are known to be there; else only those of
            inf, if the source has such.

    Raises:
        DataError: on access, when a file is unreadable or its content plainly wrong.
    """

    share = 1.0  # of every picture that counts, at least; known when the split has been judged

    def __init__(
        self,
        source: PairSource,
        transform: Transform,
        seed: int = 0,
        limit: float = 3e38,
        measured_beyond: bool = False,
    ) -> None:
        super().__init__(seed)
        # files say 80 m in units that are no whole number of float32
        self.source, self.transform, self.limit = source, cast(Any, transform), limit * (1 + 1e-6)
        self.none = source.none
        known = np.inf if source.beyond else None
        self.beyond_from = self.limit if measured_beyond else known

    @property
    def beyond(self) -> bool:
        """Whether samples have pixels that are only known to lie beyond the limit."""
        return self.beyond_from is not None

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return the pre-processed pair at an index."""
        (image, depth), name = self.pair(index), self.source.name(index)
        try:
            pixels, metres = self.transform(image, depth, seed)
        except DataError as error:  # a transform knows the sizes but not the file
            raise DataError(f"{name}: {error}") from error
        group = self.source.group(index)
        maps = {"image": pixels, "depth": metres}
        if self.beyond:
            beyond = metres.isinf()
            maps |= {"depth": metres.masked_fill(beyond, self.none), "beyond": beyond}
        return {**maps, "index": index, "name": name, "group": group}

    def pair(self, index: int) -> tuple[Image, Depth]:
        """Return the image and the depth map of a pair as they are stored."""
        image, depth = self.source.load(index)
        check_pair(image, depth, self.source.name(index))
        return image, only_depth(depth, self.limit, self.beyond_from, self.none)

    def truth(self, index: int) -> Depth:
        """Return the depth map of a pair as it is stored; no image is decoded."""
        depth = self.source.load_depth(index)
        return only_depth(depth, self.limit, self.beyond_from, self.none)

    def depth(self, index: int) -> Tensor:
        """Return the depth alone, (1, h, w) without augmentation; no image is decoded."""
        return cast(Tensor, self.transform.depth(self.truth(index)))

    def padding(self) -> dict[str, Any]:
        """Return the first image with a map without depth."""
        first = self[0]
        nothing = {"depth": torch.full_like(first["depth"], self.none), "index": PADDING}
        if self.beyond:
            nothing["beyond"] = torch.zeros_like(first["beyond"])
        return first | nothing


def padded(samples: Sequence[dict[str, Any]], none: float = 0.0) -> Any:
    """Join samples to a batch; what is smaller than others gets zeros below and right, or none."""
    for key in ("image", "depth", "beyond"):
        if key not in samples[0]:
            continue
        shapes = [sample[key].shape for sample in samples]
        height, width = (max(shape[side] for shape in shapes) for side in (1, 2))
        for sample, (_, rows, columns) in zip(samples, shapes, strict=True):
            if (rows, columns) != (height, width):
                space = (0, width - columns, 0, height - rows)
                sample[key] = pad(sample[key], space, value=none if key == "depth" else 0)
    return default_collate(list(samples))


def check_pair(image: Image, depth: Depth, name: str) -> None:
    """Check shapes and types of a pair."""
    arrays = depth, image
    if image.shape != (*depth.shape, 3) or [a.dtype for a in arrays] != [np.float32, np.uint8]:
        found = [f"{' x '.join(map(str, array.shape))} of {array.dtype}" for array in arrays]
        raise DataError(
            f"{name}: the depth map is {found[0]} and its image {found[1]}; expected both of one "
            "size, H x W of float32 and H x W x 3 of uint8"
        )


def spread(count: int) -> list[int]:
    """Return some places of `count`, spread over them, that they are judged by."""
    return sorted({round(place) for place in np.linspace(0, count - 1, _SAMPLED) if count})


def check_split(data: DepthDataset, low: float, split: str, label: Label = DEPTH) -> None:
    """Judge a split before training, by pairs spread over it, and say what it is."""
    name, unit, _ = label
    shapes, found, counted, chosen = {}, [], False, spread(len(data))
    for index in chosen:
        sample, depth = data[index], data.source.load_depth(index)
        shapes[tuple(sample["image"].shape[1:])] = sample["name"]
        data.share = min(data.share, data.transform.share(depth.shape))
        counted = counted or bool((sample["depth"] >= low).any())
        valid = depth[measured(depth, data.none)]
        found.append(valid[:: 1 + valid.size // 100_000])
    if len(shapes) > 1 and isinstance(data.transform.depth_size, tuple):
        listed = ", ".join(f"{image}: {h} x {w}" for (h, w), image in shapes.items())
        raise DataError(
            f"images of the {split} split differ in size ({listed}) and cannot have depth of one; "
            "set short_side and crop_size, or depth_size to a share such as 0.5"
        )
    depths, high = np.concatenate(found), data.limit
    near, far, last = depths < low, depths > high, depths.max(initial=0)
    # what a renderer puts behind everything says nothing of the unit
    rest = depths[depths < last] if far.any() and last > depths.min() else depths
    outside = ((rest < low) | (rest > high)).mean() if rest.size else 0.0
    if outside > 0.5:
        told = f"they are mostly {_ends(rest)} {unit}"
        if data.source.levels:
            scale = data.source.levels[1]
            told = f"at scale {scale:g} {told}{_other_scales(rest / scale, low, high)}"
        else:  # inverse
            told += "; the scale of disparity in pixels is 1 / (focal length x baseline)"
        raise DataError(
            f"{outside:.0%} of the {split} split's {name}s lie outside {low:g} to {high:.4g} "
            f"{unit}: "
            f"{told}; {_RANGE}"
        )
    if not counted:
        raise DataError(
            f"the {split} split has no pixel with {name} of at least {low:g} {unit} in "
            f"{len(chosen)} pairs; check scale and invalid, or --data.depth_range"
        )
    if split == "train" and (data.source.levels or data.share < 1):  # of files, not of rooms
        size = " and ".join(f"{height} x {width}" for height, width in list(shapes)[:2])
        lost = "" if data.share == 1 else " (all of it with --data.crop_size null)"
        logger.info(
            f"{len(data)} training pictures of {size}{' and more' * (len(shapes) > 2)} pixels, "
            f"{data.share:.0%} of each counts{lost}; {name} mostly "
            f"{_ends(depths[~near & ~far])} {unit}"
        )
    if data.beyond_from == high:
        far = np.zeros_like(far)
    if split != "val" and (near | far).mean() > _SHOWN:
        logger.warning(
            f"{near.mean():.1%} of the {split} pixels with {name} are nearer than {low:g} {unit} "
            f"and {far.mean():.1%} lie beyond {high:.4g} {unit}: they count as having none; "
            f"{_RANGE}"
        )


def _ends(depths: NDArray[np.float32]) -> str:
    return "{:.3g} to {:.3g}".format(*np.quantile(depths, (0.05, 0.95)))


def _other_scales(stored: NDArray[np.float32], low: float, high: float) -> str:
    """Return which scales would put stored values into the range, and where."""
    ways = []
    for name, scale in _UNITS.items():
        depths = stored * scale
        share = round(float(((depths >= low) & (depths <= high)).mean()), 2)
        ways += [(share, f"{name} gives {_ends(depths)} m")] * (share > 0.75)
    best = sorted(ways, key=lambda way: -way[0])[:3]
    return f", but {', '.join(text for _, text in best)}" if best else ""
