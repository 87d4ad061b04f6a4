"""A source of (image, depth) pairs: the one interface between storage and everything else."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]


class PairSource:
    """Indexed access to pairs of an image and its depth map.

    A subclass writes `__len__`, `load` and `fingerprint`; `load_depth` where depth can be had
    without decoding the image, `name` where a pair has one, `group` where scenes are known.

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
        return f"pair {index}"

    def group(self, index: int) -> str:
        """Return the scene folder, or "" where none is known; splits never cut a group."""
        return ""

    def fingerprint(self) -> str:
        """Return a hex digest that changes when the content does, without reading all of it."""
        raise NotImplementedError


class PairSubset(PairSource):
    """Some pairs of another source, in the given order.

    Args:
        source: the source to choose from.
        indices: positions in `source`.

    Raises:
        IndexError: when an index lies outside the source.
    """

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = [int(index) for index in indices]
        for index in self.indices:
            if not 0 <= index < len(source):
                raise IndexError(f"index {index} lies outside the source of {len(source)} pairs")

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return the pair at this position of the subset."""
        return self.source.load(self.indices[index])

    def load_depth(self, index: int) -> Depth:
        """Return the depth map at this position of the subset."""
        return self.source.load_depth(self.indices[index])

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
