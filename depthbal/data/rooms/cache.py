"""Render a split once: over several processes, kept in the user's cache directory.

Rendering a hundred pictures of 160 x 120 takes about a second; reading them back takes a
fraction of one. A run, its evaluation, its resume and every rank of a parallel run read the same
files.
"""

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset

from depthbal.data.pairs import Depth, Image
from depthbal.data.rooms.source import RoomsSource, Split, key_of, room
from depthbal.files import replacing

_WORTH_PROCESSES = 64  # fewer pictures are rendered sooner than processes start


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
    file = cache_file(key)
    arrays = _read(file, (count, *size)) if cache else None
    if arrays is None:
        arrays = _render(_Rendering(seed, split, count, size), workers, progress)
        if cache:
            _write(file, *arrays)
    return RoomsSource(*arrays, split, key)


def cache_file(key: str) -> Path:
    """Return where pictures with this key are kept; the folder may be deleted at any time."""
    return user_cache_path("depthbal") / "rooms" / f"{key}.npz"


def _render(pictures: _Rendering, workers: int, progress: bool) -> tuple[Image, Depth]:
    """Render all pictures into two arrays."""
    images = np.empty((len(pictures), *pictures.size, 3), np.uint8)
    depths = np.empty((len(pictures), *pictures.size), np.float32)
    workers = workers if len(pictures) >= _WORTH_PROCESSES else 0
    loader = DataLoader(pictures, batch_size=None, num_workers=workers)
    quiet = not (progress and Console().is_terminal)
    with Progress(transient=True, disable=quiet) as bar:
        task = bar.add_task(f"Rendering rooms ({pictures.split})", total=len(pictures))
        for index, (image, depth) in enumerate(loader):
            images[index], depths[index] = image, depth
            bar.advance(task)
    return images, depths


def _read(file: Path, shape: tuple[int, int, int]) -> tuple[Image, Depth] | None:
    """Return the arrays in a cache file; None where it is missing, damaged or not ours."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            images, depths = stored["images"], stored["depths"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    ours = images.shape == (*shape, 3) and depths.shape == shape
    return (images, depths) if ours and images.dtype == np.uint8 else None


def _write(file: Path, images: Image, depths: Depth) -> None:
    """Keep the arrays, in one atomic step, if the cache can be written at all."""
    with suppress(OSError), replacing(file) as temporary:
        np.savez(temporary, images=images, depths=depths)
