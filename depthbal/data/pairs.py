"""A source of (image, depth) pairs: the one interface between storage and everything else."""

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from depthbal.priors import Histogram

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]


class NamedSource(Protocol):
    """What can be checked before it is read: any number of named samples."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def name(self, index: int) -> str:
        """Return what an error message or a result table calls this sample."""
        ...

    def fingerprint(self) -> str:
        """Return a hex digest that changes when the content does, without reading all of it."""
        ...


@runtime_checkable
class PairSource(NamedSource, Protocol):
    """Indexed access to pairs of an image and its depth map.

    A source that can deliver depth without decoding the image may also define
    ``load_depth(index) -> depth``; passes that need depth only then use it (see `load_depth`).
    One whose pairs are files may define ``files(index) -> (image path, depth path)``, so that they
    can be checked without being decoded; one that knows its sizes without reading,
    ``size(index) -> (height, width)``. One that keeps histograms of its depth may define
    ``stored_histogram(fingerprint)`` (see `stored_histogram`).
    """

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (H, W, 3) RGB and depth float32 (H, W) in metres, 0 = no depth."""
        ...

    def group(self, index: int) -> str:
        """Return the scene folder, or "" where none is known; splits never cut a group."""
        ...


class PairSubset:
    """Some pairs of another source, in the given order.

    Args:
        source: the source to choose from.
        indices: positions in `source`; each must lie in ``range(len(source))``.

    Raises:
        IndexError: when an index lies outside the source.
    """

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = [int(index) for index in indices]
        size = len(source)
        for index in self.indices:
            if not 0 <= index < size:
                raise IndexError(f"index {index} lies outside the source of {size} pairs")

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return the pair at this position of the subset."""
        return self.source.load(self.indices[index])

    def load_depth(self, index: int) -> Depth:
        """Return only the depth map at this position of the subset."""
        return load_depth(self.source, self.indices[index])

    def files(self, index: int) -> tuple[str, str | None] | None:
        """Return the image and the depth file at this position of the subset, if they are files."""
        return pair_files(self.source, self.indices[index])

    def size(self, index: int) -> tuple[int, int] | None:
        """Return (height, width) at this position of the subset, if the source knows it."""
        return pair_size(self.source, self.indices[index])

    def stored_histogram(self, fingerprint: str) -> Histogram | None:
        """Return what the underlying source keeps under a fingerprint."""
        return stored_histogram(self.source, fingerprint)

    def name(self, index: int) -> str:
        """Return the name the underlying source gives this pair."""
        return self.source.name(self.indices[index])

    def group(self, index: int) -> str:
        """Return the group the underlying source gives this pair."""
        return self.source.group(self.indices[index])

    def fingerprint(self) -> str:
        """Return a digest of the underlying source and of the chosen positions."""
        chosen = np.asarray(self.indices, dtype=np.int64).tobytes()
        return hashlib.sha256(self.source.fingerprint().encode() + chosen).hexdigest()


def load_depth(source: PairSource, index: int) -> Depth:
    """Return the depth map of one pair, without decoding its image where the source can do so."""
    loader = getattr(source, "load_depth", None)
    depth: Depth = loader(index) if loader is not None else source.load(index)[1]
    return depth


def pair_files(source: NamedSource, index: int) -> tuple[str, str | None] | None:
    """Return the paths of one pair's image and depth; None where the source is not made of files.

    The files must hold the size that `PairSource.load` delivers. Images without depth have None
    in its place.
    """
    finder = getattr(source, "files", None)
    files: tuple[str, str | None] | None = finder(index) if finder is not None else None
    return files


def pair_size(source: NamedSource, index: int) -> tuple[int, int] | None:
    """Return one pair's (height, width) where the source knows it without reading, else None."""
    finder = getattr(source, "size", None)
    size: tuple[int, int] | None = finder(index) if finder is not None else None
    return size


def stored_histogram(source: PairSource, fingerprint: str) -> Histogram | None:
    """Return the histogram that a source keeps under a data module's fingerprint, else None."""
    finder = getattr(source, "stored_histogram", None)
    histogram: Histogram | None = finder(fingerprint) if finder is not None else None
    return histogram
