"""What can be packed: images and depth before any resizing, depth in the source's own levels."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from depthbal.data.files import FilePairs
from depthbal.data.headers import Size, check_files
from depthbal.data.images import read_image
from depthbal.data.packed.stored_depth import StoredDepth
from depthbal.data.pairs import Image


class Packable(Protocol):
    """Indexed access to what is packed of a split."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        ...

    def size(self, index: int) -> Size:
        """Return (height, width) of a pair, cheaply where the source allows it."""
        ...

    def image(self, index: int) -> Image:
        """Return the image uint8 (H, W, 3) RGB."""
        ...

    def depth(self, index: int) -> StoredDepth:
        """Return the depth in levels (H, W)."""
        ...

    def name(self, index: int) -> str:
        """Return what messages call this pair."""
        ...

    def group(self, index: int) -> str:
        """Return the scene, or "" where none is known."""
        ...

    def fingerprint(self) -> str:
        """Return a digest that changes when the source does, without reading all of it."""
        ...


class PackableFiles:
    """Image and depth files, with depth in levels.

    Args:
        files: the pairs.
        store: turns the path of a depth file into levels.
    """

    def __init__(self, files: FilePairs, store: Callable[[Path], StoredDepth]) -> None:
        self.files = files
        self.store = store

    def __len__(self) -> int:
        return len(self.files)

    def size(self, index: int) -> Size:
        """Return the size in the files' headers, both checked for being whole."""
        size = check_files(*self.files.files(index), self.name(index))
        if size is None:  # a format that does not tell cheaply
            height, width = self.depth(index).levels.shape
            return height, width
        return size

    def image(self, index: int) -> Image:
        """Return the decoded image."""
        return read_image(self.files.files(index)[0])

    def depth(self, index: int) -> StoredDepth:
        """Return the levels of the depth file."""
        return self.store(Path(self.files.files(index)[1]))

    def name(self, index: int) -> str:
        """Return both paths, as they appear under the root."""
        return self.files.name(index)

    def group(self, index: int) -> str:
        """Return the folder of the image."""
        return self.files.group(index)

    def fingerprint(self) -> str:
        """Return a digest of names, sizes, modification times and of the reading."""
        return self.files.fingerprint()
