"""The size of a stored image or depth map from a few bytes, and whether the file is whole."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from depthbal.data.images import END_MARKS, read_image, read_raw_depth
from depthbal.errors import DataError

Size = tuple[int, int]

_HEAD = 1024  # holds the size in nearly every JPEG without embedded previews
_TAIL = 64
_PNG = b"\x89PNG\r\n\x1a\n"
_ONE_CHANNEL = 0  # PNG colour type
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that state the size
_APP1, _EXIF, _ORIENTATION = 0xE1, b"Exif\0\0", 0x0112
_BARE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length


class _DoubtfulError(Exception):
    """A file that looks wrong from its first and last bytes."""


def check_files(image: str, depth: str | None, name: str) -> Size | None:
    """Check, from a few bytes, that an image and a depth file are whole and of the same size.

    A file that looks wrong is read in full, so that the reader has the last word and the error is
    its own. PNG, JPEG and npy files are checked; of others only that there is a decoder for them.

    Args:
        image: path of the image.
        depth: path of the depth map; None checks the image alone.
        name: what the message calls the pair.

    Returns:
        (height, width) of the depth map (of an image alone, its own); None where its format does
        not tell cheaply.

    Raises:
        DataError: naming the file or the pair and what is wrong with it.
    """
    image_size = _size(image, _peek_image, read_image)
    if depth is None:
        return image_size
    depth_size = _size(depth, _peek_depth, read_raw_depth)
    if image_size is None or depth_size is None or image_size == depth_size:
        return depth_size
    if image_size == depth_size[::-1]:  # a PNG too may carry an EXIF tag that turns it upright
        image_size = _full_size(image, read_image)
    if image_size != depth_size:
        raise DataError(
            f"{name}: the depth map is {depth_size[0]} x {depth_size[1]} but its image "
            f"{image_size[0]} x {image_size[1]} (height x width); export both at the same size"
        )
    return depth_size


def _size(
    path: str, peek: Callable[[str], Size | None], read: Callable[[str], NDArray[Any]]
) -> Size | None:
    try:
        return peek(path)
    except (_DoubtfulError, OSError, struct.error):
        return _full_size(path, read)


def _full_size(path: str, read: Callable[[str], NDArray[Any]]) -> Size:
    height, width = read(path).shape[:2]
    return height, width


def _peek_image(path: str) -> Size | None:
    return _peek(path)[0]


def _peek_depth(path: str) -> Size | None:
    if Path(path).suffix.lower() == ".npy":
        return _peek_npy(path)
    size, single = _peek(path)
    if not single:
        raise _DoubtfulError
    return size


def _peek(path: str) -> tuple[Size | None, bool]:
    """Return the size in an image file's header and whether it may hold a single channel."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD)
        mark = END_MARKS.get(head[:2])
        if mark is None:
            if not cv2.haveImageReader(path):
                raise _DoubtfulError
            return None, True
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        if mark not in file.read(_TAIL):
            raise _DoubtfulError
        if head[:2] == _PNG[:2]:
            return _png_size(head)
        return _jpeg_size(file, head), True


def _png_size(head: bytes) -> tuple[Size, bool]:
    if not head.startswith(_PNG) or head[12:16] != b"IHDR":
        raise _DoubtfulError
    width, height, _, colour = struct.unpack_from(">IIBB", head, 16)
    return _positive((height, width)), colour == _ONE_CHANNEL


def _jpeg_size(file: BinaryIO, head: bytes) -> Size:
    """Walk over the segments to the one that states the size (ITU-T T.81, annex B)."""
    start, place = 0, 2  # where `head` begins in the file, where the next marker does
    turned = False
    while True:
        if place + 9 > start + len(head):  # behind a long segment: read on from there
            file.seek(place)
            start, head = place, file.read(_HEAD)
        fill, code, length = struct.unpack_from(">BBH", head, place - start)
        if fill != 0xFF:
            raise _DoubtfulError
        if code == 0xFF:  # fill byte
            place += 1
        elif code in _BARE:
            place += 2
        elif code in _FRAMES:
            height, width = struct.unpack_from(">HH", head, place - start + 5)
            return _positive((width, height) if turned else (height, width))
        elif code in (0xD9, 0xDA):  # image data without a size
            raise _DoubtfulError
        else:
            if code == _APP1:
                file.seek(place + 4)
                turned = turned or _turns(file.read(min(length, _HEAD)))
            place += 2 + length


def _turns(segment: bytes) -> bool:
    """Return whether a JPEG's EXIF segment says to show rows as columns (orientation 5 to 8)."""
    if not segment.startswith(_EXIF):
        return False
    tiff = segment[len(_EXIF) :]
    order = "<" if tiff.startswith(b"II") else ">"
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, first)
    for entry in range(entries):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, first + 2 + 12 * entry)
        if tag == _ORIENTATION:
            return bool(5 <= value <= 8)
    return False


def _positive(size: Size) -> Size:
    if min(size) < 1:
        raise _DoubtfulError
    return size


def _peek_npy(path: str) -> Size:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as error:
        raise _DoubtfulError from error
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind not in "fiu":
        raise _DoubtfulError
    height, width = stored.shape
    return height, width
