"""Sources of (image, depth) pairs: the one interface between storage and everything else."""

import hashlib
import os
import posixpath
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from depthbal.data import images
from depthbal.data.images import Depth as Depth
from depthbal.data.images import Image as Image
from depthbal.data.images import Scale

Levels = tuple[np.dtype[Any], float]
"""The whole numbers that depth is stored in, and the metres per level."""


class PairSource:
    """Indexed access to pairs of an image and its depth map.

    A subclass writes `__len__`, `load` and `fingerprint`; `load_depth` where depth can be had
    without decoding the image. It sets `names` for messages and tables, `groups` where scenes are
    known, which no split cuts, and `levels` where depth is stored in whole numbers.

    Example:
        >>> class Blank(PairSource):
        ...     def __len__(self) -> int:
        ...         return 3
        ...
        ...     def load(self, index: int) -> tuple[Image, Depth]:
        ...         return np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32)
        >>> Blank().load_depth(2).shape, Blank().name(2), Blank().group(2)
        ((4, 6), 'pair 2', '')
    """

    names: Sequence[str] | None = None
    image_paths: Sequence[str] | None = None  # of the images' files, where names say more
    groups: Sequence[str] | None = None
    levels: Levels | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (H, W, 3) RGB and depth float32 (H, W) in metres, 0 = no depth."""
        raise NotImplementedError

    def load_depth(self, index: int) -> Depth:
        """Return the depth map alone."""
        return self.load(index)[1]

    def name(self, index: int) -> str:
        """Return what an error message or a result table calls this pair."""
        return f"pair {index}" if self.names is None else str(self.names[index])

    def image_path(self, index: int) -> str:
        """Return the path of the image, by which predictions of other programs are found."""
        return self.name(index) if self.image_paths is None else str(self.image_paths[index])

    def group(self, index: int) -> str:
        """Return the scene, or "" where none is known."""
        return "" if self.groups is None else str(self.groups[index])

    def fingerprint(self) -> str:
        """Return a hex digest that changes when the content does, without reading all of it."""
        raise NotImplementedError


class PairSubset(PairSource):
    """Some pairs of another source, in the order of their positions in it."""

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self.source, self.levels = source, source.levels
        self.indices = [range(len(source))[index] for index in indices]
        self.names = [source.name(index) for index in self.indices]
        self.image_paths = [source.image_path(index) for index in self.indices]
        self.groups = [source.group(index) for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return the pair at this position of the subset."""
        return self.source.load(self.indices[index])

    def load_depth(self, index: int) -> Depth:
        """Return the depth map at this position of the subset."""
        return self.source.load_depth(self.indices[index])

    def fingerprint(self) -> str:
        """Return a digest of the underlying source and of the chosen positions."""
        chosen = np.asarray(self.indices, dtype=np.int64).tobytes()
        return hashlib.sha256(self.source.fingerprint().encode() + chosen).hexdigest()


class FilePairs(PairSource):
    """Image and depth files, read when asked for.

    Paths have forward slashes and are relative to `root`; `scale` and `invalid` (values that mean
    "no depth", as 0 always does) say how depth is read.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[tuple[str, str]],
        scale: Scale = None,
        invalid: Sequence[float] = (0.0,),
    ) -> None:
        self.root, self.pairs = root, list(pairs)
        self.scale, self.invalid = scale, tuple(invalid)
        self.names = [f"{image} with {depth}" for image, depth in self.pairs]
        self.image_paths = [image for image, _ in self.pairs]
        self.groups = [posixpath.dirname(image) or "." for image, _ in self.pairs]
        first = root / self.pairs[0][1]
        dtype = images.read_raw_depth(first).dtype
        step = images.metres_per_unit(scale, dtype, first)
        self.levels = (dtype, step) if dtype.kind in "iu" else None
        self._digest = ""

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (H, W, 3) RGB and depth float32 (H, W) in metres."""
        return images.read_image(self.root / self.pairs[index][0]), self.load_depth(index)

    def load_depth(self, index: int) -> Depth:
        """Return the depth map, float32 (H, W) in metres."""
        return images.read_depth(self.root / self.pairs[index][1], self.scale, self.invalid)

    def fingerprint(self) -> str:
        """Return a digest of all names, sizes and modification times, and of the reading."""
        if not self._digest:
            paths, reading = chain(*self.pairs), f"scale={self.scale} invalid={self.invalid}"
            self._digest = files_digest(self.root, paths, reading)
        return self._digest


def missing_files(root: Path, paths: Iterable[str]) -> list[str]:
    """Return the paths whose files do not exist under `root`; every folder is listed once."""

    @cache
    def names(folder: str) -> set[str]:
        with suppress(OSError):
            return set(os.listdir(root / folder))
        return set()

    return [
        path for path in paths if posixpath.basename(path) not in names(posixpath.dirname(path))
    ]


def files_digest(root: Path, paths: Iterable[str], reading: str) -> str:
    """Return a digest of names, sizes and times of files under `root`, and of how they are read."""

    @cache
    def states(folder: str) -> dict[str, str]:
        found = {}
        with os.scandir(root / folder) as entries:
            for entry in entries:
                with suppress(OSError):  # a link to nothing: reading it will say so
                    status = entry.stat()
                    found[entry.name] = f"{status.st_size}:{status.st_mtime_ns}"
        return found

    digest = hashlib.sha256(reading.encode())
    for path in paths:
        folder, name = posixpath.split(path)
        digest.update(f"{path}:{states(folder).get(name, 'missing')}\n".encode())
    return digest.hexdigest()
