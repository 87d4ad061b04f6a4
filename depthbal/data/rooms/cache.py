"""Render a split once: over several processes, kept in the user's cache directory.

Rendering a hundred pictures of 160 x 120 takes about a second; reading them back takes a
fraction of one. A run, its evaluation, its resume and every rank of a parallel run read the same
files.
"""

import numpy as np
from torch.utils.data import Dataset

from depthbal.data.cache import cache_file, drawn_arrays
from depthbal.data.pairs import Depth, Image
from depthbal.data.rooms.source import RoomsSource, Split, key_of, room


class _Rendering(Dataset[tuple[Image, Depth]]):
    """Pictures of a split, rendered when asked for, so that a DataLoader spreads the work."""

    def __init__(self, seed: int, split: Split, count: int, size: tuple[int, int]) -> None:
        self.seed, self.split, self.count, self.size = seed, split, count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image, Depth]:
        return room(self.seed, self.split, index, self.size)


def rooms_source(
    split: Split,
    count: int,
    *,
    size: tuple[int, int] = (120, 160),
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
    cache: bool = True,
) -> RoomsSource:
    """Return the first `count` pictures of a split, from the cache or freshly rendered.

    A cached file that is missing, truncated or damaged (every zip member carries a checksum) is
    rendered again; a cache that cannot be written costs time only and is no error.

    Args:
        split: "train", "val" or "test".
        count: number of pictures.
        size: (height, width) in pixels.
        seed: of the pictures.
        workers: processes that render; 0 renders in this one.
        progress: show a progress bar.
        cache: read and write the cache directory.

    Example:
        >>> source = rooms_source("test", 2, size=(24, 32), progress=False, cache=False)
        >>> len(source), source.name(1)
        (2, 'rooms/test/00001')
    """
    key = key_of(seed, split, count, size)
    arrays = drawn_arrays(
        _Rendering(seed, split, count, size),
        {"images": ((*size, 3), np.uint8), "depths": (size, np.float32)},
        cache_file("rooms", f"{key}.npz") if cache else None,
        title=f"Rendering rooms ({split})",
        workers=workers,
        progress=progress,
    )
    return RoomsSource(arrays["images"], arrays["depths"], split, key)

