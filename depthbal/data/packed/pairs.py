"""The pairs of a packed file, read by position without HDF5."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.data.headers import Size
from depthbal.data.images import to_metres
from depthbal.data.packed.format import file_state, open_packed, read_histograms, read_texts
from depthbal.data.packed.origin import Origin
from depthbal.data.pairs import Depth, Image
from depthbal.errors import DataError
from depthbal.priors import Histogram


class PackedPairs:
    """One split of a file written by ``tools/prepare_nyud2.py``.

    HDF5's own state does not survive a fork, so the library is used in the constructor only: it
    says where in the file each sample's bytes begin, and a sample is then read with plain file
    operations, opened and closed again. Any number of forked or spawned processes and of threads
    may share a source.

    Args:
        path: the file.
        split: "train", "val", "test" or "whole".
        complete: refuse an unfinished file.

    Raises:
        DataError: the file is missing, damaged, foreign or unfinished, or has no such split.
    """

    def __init__(self, path: Path, split: str, complete: bool = True) -> None:
        self.path = path
        self.split = split
        with open_packed(path, complete) as file:
            self._state = file_state(path)
            self.origin = Origin.from_json(file.attrs["origin"])
            self.short_side = int(file.attrs["short_side"]) or None
            if split not in file:
                raise DataError(
                    f"{path} has no {split} split (packed: {', '.join(packed_splits(file))})"
                )
            self.origin_fingerprint: str = json.loads(file.attrs["fingerprints"])[split]
            group = file[split]
            self.scale = float(group.attrs["scale"])
            self.dtype: np.dtype[Any] = group["depth"].dtype
            self._content = bytes(group.attrs["content"]).decode()
            self._checksums: NDArray[np.uint32] = group["checksum"][()]
            self._sizes: NDArray[np.int64] = group["size"][()].astype(np.int64)
            self._names, self._groups = read_texts(group["name"]), read_texts(group["group"])
            self._images = _positions(group["image"], path)
            self._depths = _positions(group["depth"], path)
            self._full_size: Size = group["depth"].shape[1:]

    def __len__(self) -> int:
        return len(self._names)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (h, w, 3) RGB and depth float32 (h, w) in metres, 0 = no depth.

        Raises:
            DataError: the bytes are not those that were packed.
        """
        image, levels = self.stored(index)
        if checksum(image, levels) != self._checksums[index]:
            raise DataError(
                f"{self.path} is damaged: {self.name(index)} ({self.split} split) is not what was "
                "packed; copy the file again from where it is whole, or pack it again (--overwrite)"
            )
        return image, self._metres(levels, index)

    def load_depth(self, index: int) -> Depth:
        """Return only the depth map, unchecked: the checksum is one of image and depth."""
        return self._metres(self._read(index, image=False)[0], index)

    def stored(self, index: int) -> tuple[Image, NDArray[Any]]:
        """Return the image and the levels of the depth, as they are in the file."""
        image, levels = self._read(index, image=True)
        return image, levels

    def size(self, index: int) -> Size:
        """Return (height, width) of a pair."""
        height, width = self._sizes[index].tolist()
        return height, width

    def name(self, index: int) -> str:
        """Return what the source called this pair."""
        return self._names[index]

    def group(self, index: int) -> str:
        """Return the scene that the source gave this pair."""
        return self._groups[index]

    def fingerprint(self) -> str:
        """Return the digest of all samples, names and groups; a moved file keeps it."""
        return self._content

    def stored_histogram(self, fingerprint: str) -> Histogram | None:
        """Return the histogram kept in the file under a data module's fingerprint."""
        with open_packed(self.path) as file:
            described = read_histograms(file).get(fingerprint)
        return None if described is None else Histogram.from_dict(described)

    def _metres(self, levels: NDArray[Any], index: int) -> Depth:
        return to_metres(levels, self.scale, (0,), self.name(index))

    def _read(self, index: int, image: bool) -> list[NDArray[Any]]:
        """Return the depth levels, and the image before them if it is wanted."""
        wanted: list[tuple[int, np.dtype[Any], tuple[int, ...]]] = [
            (int(self._depths[index]), self.dtype, self._full_size)
        ]
        if image:
            full = (*self._full_size, 3)
            wanted.insert(0, (int(self._images[index]), np.dtype(np.uint8), full))
        height, width = self._sizes[index]
        try:
            with open(self.path, "rb", buffering=0) as file:
                if file_state(file.fileno()) != self._state:
                    raise DataError(f"{self.path} was replaced while it was in use; start again")
                return [
                    np.ascontiguousarray(_read_at(file, *one)[:height, :width]) for one in wanted
                ]
        except OSError as error:
            raise DataError(
                f"{self.path}: {self.name(index)} cannot be read ({error.strerror or error})"
            ) from error


def packed_splits(file: Any) -> list[str]:
    """Return the splits in an open packed file."""
    return [name for name in ("train", "val", "test", "whole") if name in file]


def checksum(image: Image, levels: NDArray[Any]) -> int:
    """Return the CRC-32 of an image's bytes followed by those of its depth, both contiguous."""
    return zlib.crc32(levels.data.cast("B"), zlib.crc32(image.data.cast("B")))


def _read_at(
    file: Any, position: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    view = array.data.cast("B")
    file.seek(position)
    while view:
        count = file.readinto(view)
        if not count:
            raise OSError("the file ends too early")
        view = view[count:]
    return array


def _positions(dataset: Any, path: Path) -> NDArray[np.int64]:
    """Return where each sample's chunk begins in the file.

    Raises:
        DataError: samples are not stored one per chunk and unfiltered, as this package writes them.
    """
    plain = dataset.id.get_create_plist().get_nfilters() == 0
    if not plain or dataset.chunks != (1, *dataset.shape[1:]):
        raise DataError(
            f"{path}: {dataset.name} was compressed or stored anew by another program; use the "
            "original file"
        )
    positions = np.full(len(dataset), -1, dtype=np.int64)
    dataset.id.chunk_iter(_collector(positions))
    if (positions < 0).any():
        raise DataError(f"{path} is damaged: {dataset.name} lacks samples; pack it again")
    return positions


def _collector(positions: NDArray[np.int64]) -> Callable[[Any], None]:
    def collect(chunk: Any) -> None:
        positions[chunk.chunk_offset[0]] = chunk.byte_offset

    return collect
