"""Pairs that lie as image and depth files under one folder."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from depthbal.data.images import read_image, read_raw_depth
from depthbal.data.pairs import Depth, Image, PairSource


class FilePairs(PairSource):
    """Image and depth files, read when asked for.

    Args:
        root: the folder that all paths are relative to.
        pairs: (image path, depth path) of every pair, with forward slashes, relative to `root`.
        read_depth: turns the path of a depth file into float32 (H, W) metres, 0 = no depth; must
            be picklable (a function of a module, or a `functools.partial` of one).
        reading: settings of `read_depth`, as text; part of the fingerprint.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[tuple[str, str]],
        read_depth: Callable[[Path], Depth],
        reading: str,
    ) -> None:
        self.root = root
        self.pairs = list(pairs)
        self.read_depth = read_depth
        self.reading = reading

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (H, W, 3) RGB and depth float32 (H, W) in metres."""
        return read_image(self.root / self.pairs[index][0]), self.load_depth(index)

    def load_depth(self, index: int) -> Depth:
        """Return the depth map, float32 (H, W) in metres."""
        return self.read_depth(self.root / self.pairs[index][1])

    def stored_dtype(self) -> "np.dtype[Any]":
        """Return the type of number that the first depth file holds."""
        return read_raw_depth(self.root / self.pairs[0][1]).dtype

    def name(self, index: int) -> str:
        """Return both paths, as they appear under the root."""
        image, depth = self.pairs[index]
        return f"{image} with {depth}"

    def group(self, index: int) -> str:
        """Return the folder of the image, relative to the root."""
        return str(PurePosixPath(self.pairs[index][0]).parent)

    def fingerprint(self) -> str:
        """Return a digest of all names, sizes and modification times, and of the reading."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return files_digest(self.root, (path for pair in self.pairs for path in pair), self.reading)


def files_digest(root: Path, paths: Iterable[str], reading: str) -> str:
    """Return a digest of names, sizes and modification times of files under `root`.

    Every folder is listed once; `reading` is what else the content depends on, as text.
    """
    digest = hashlib.sha256(reading.encode())
    known: dict[str, dict[str, str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in known:
            known[folder] = _states(root / folder)
        digest.update(f"{path}:{known[folder].get(name, 'missing')}\n".encode())
    return digest.hexdigest()


def missing_files(root: Path, paths: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield position and path of every file that does not exist under `root`.

    Every folder is listed once, so that 100,000 paths take a fraction of a second.
    """
    known: dict[str, set[str]] = {}
    for position, path in enumerate(paths):
        folder, _, name = path.rpartition("/")
        if folder not in known:
            known[folder] = set()
            with suppress(OSError):
                known[folder] = set(os.listdir(root / folder))
        if name not in known[folder]:
            yield position, path


def _states(folder: Path) -> dict[str, str]:
    states = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # a link to nothing: reading it will say so
                status = entry.stat()
                states[entry.name] = f"{status.st_size}:{status.st_mtime_ns}"
    return states
