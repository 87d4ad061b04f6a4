"""Rendered rooms as a source of image and depth pairs."""

import hashlib
import json
from typing import Literal, TypeAlias

import numpy as np

from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.data.rooms.generate import random_scene
from depthbal.data.rooms.render import render

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
RENDERER_VERSION = 2
"""Raised whenever the same seed gives other pictures; part of every fingerprint and cache key."""


def room(seed: int, split: Split, index: int, size: tuple[int, int]) -> tuple[Image, Depth]:
    """Return one picture: image uint8 (H, W, 3) RGB and z-depth float32 (H, W) in metres.

    It depends on the arguments only, not on other pictures, the process or the machine. (Another
    CPU or NumPy release may round a pixel's last bit differently.)

    Args:
        seed: of the whole data set, at least 0.
        split: "train", "val" or "test"; no two splits share a picture.
        index: number of the picture in its split, at least 0.
        size: (height, width) in pixels.

    Example:
        >>> image, depth = room(seed=0, split="train", index=0, size=(24, 32))
        >>> image.shape, image.dtype, depth.shape, depth.dtype
        ((24, 32, 3), dtype('uint8'), (24, 32), dtype('float32'))
    """
    key = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    rng = np.random.default_rng(key)
    return render(random_scene(rng, size), rng)


def key_of(seed: int, split: Split, count: int, size: tuple[int, int]) -> str:
    """Return a hex digest of all that the first `count` pictures of a split depend on."""
    settings = [RENDERER_VERSION, seed, split, count, list(size)]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]


class RoomsSource(PairSource):
    """The rendered pictures of one split, held in memory; each is a scene of its own.

    Args:
        images: uint8 (N, H, W, 3) RGB.
        depths: float32 (N, H, W) in metres, 0 = no depth.
        split: which split they are.
        key: identifies them (see `key_of`).
    """

    def __init__(self, images: Image, depths: Depth, split: Split, key: str) -> None:
        self.images = images
        self.depths = depths
        self.split = split
        self.key = key

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image and depth of one picture."""
        return self.images[index], self.depths[index]

    def load_depth(self, index: int) -> Depth:
        """Return the depth of one picture."""
        depth: Depth = self.depths[index]
        return depth

    def name(self, index: int) -> str:
        """Return, for example, `rooms/train/00012`."""
        return f"rooms/{self.split}/{index:05d}"

    def group(self, index: int) -> str:
        """Return the scene's name: no two pictures show the same scene."""
        return self.name(index)

    def fingerprint(self) -> str:
        """Return the digest of everything the pictures depend on."""
        return self.key
