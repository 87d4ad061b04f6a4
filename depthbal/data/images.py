"""Reading, writing and resizing of images and depth maps with OpenCV."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthbal.errors import DataError
from depthbal.io import replacing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
MILLIMETRE = 0.001

Array = TypeVar("Array", bound=NDArray[Any])

# Every complete file of these formats carries this mark near its end; decoders fill a truncated
# JPEG with grey and report success.
_END_MARKS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
_TAIL = 65536


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image file as uint8 (H, W, 3) RGB, turned upright by its EXIF tag.

    Grey is repeated over the channels, alpha is dropped, 16 bit are reduced to 8. A file that is
    missing, truncated or no image is a `DataError` with its path.
    """
    decoded = _decode(path, cv2.IMREAD_COLOR)
    return cast(NDArray[np.uint8], cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def read_raw_depth(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a depth file as stored, (H, W): 8 or 16 bit from an image, real numbers from .npy."""
    if Path(path).suffix.lower() == ".npy":
        try:
            raw: NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{path}: not a readable .npy file ({error}); write it again, or leave it out"
            ) from error
        if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "fiu":
            raise DataError(f"{path}: expected an array of real numbers")
    else:
        raw = _decode(path, cv2.IMREAD_UNCHANGED)
    if raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[2]):
        raw = raw[..., 0] if raw.shape[2] == 1 else raw[0]
    if raw.ndim != 2:
        raise DataError(
            f"{path}: expected depth with one channel, got shape {raw.shape}; "
            "colour-coded depth cannot be read back as metres"
        )
    return raw


def read_depth(
    path: str | os.PathLike[str], scale: float | None = None, invalid: Sequence[float] = (0,)
) -> NDArray[np.float32]:
    """Read a depth file, PNG or TIFF with 8 or 16 bit or .npy, as float32 (H, W) in metres."""
    return to_metres(read_raw_depth(path), scale, invalid, str(path))


def to_metres(
    raw: NDArray[Any], scale: float | None, invalid: Sequence[float], name: str
) -> NDArray[np.float32]:
    """Convert stored depth to float32 metres with 0 = no depth.

    Args:
        raw: (H, W) in the file's own units.
        scale: metres per unit; None means millimetres for 16-bit images and metres for .npy with
            floating-point numbers, and is an error for anything else.
        invalid: values of the file that mean "no depth"; 0 always does.
        name: what messages call it.

    Example:
        >>> to_metres(np.array([[0, 1500, 65535]], dtype=np.uint16), None, (0, 65535), "x").tolist()
        [[0.0, 1.5, 0.0]]
    """
    if scale is None:
        scale = default_scale(raw.dtype, name)
    # in double precision, so that 700 mm is the float32 next to 0.7 and not the one after it
    depth: NDArray[np.float32]
    if raw.dtype == np.uint8:
        depth = (np.arange(256) * scale).astype(np.float32)[raw]
    else:
        depth = np.multiply(raw, scale, dtype=np.float64).astype(np.float32)
    for value in invalid:
        if value != 0:  # 0 stays 0 under any scale
            depth[np.isnan(raw) if np.isnan(value) else raw == value] = 0.0
    return depth


def default_scale(dtype: np.dtype[Any], name: str) -> float:
    """Return the metres per unit that a type of number stands for by convention."""
    if dtype == np.uint16:
        return MILLIMETRE
    if np.issubdtype(dtype, np.floating):
        return 1.0
    raise DataError(
        f"{name}: depth is stored as {dtype}, which says nothing about its unit; "
        "set scale to the metres per unit, for example 10 / 255 = 0.0392157 for 8 bit up to 10 m"
    )


def write_depth_png(path: str | os.PathLike[str], depth: NDArray[np.floating[Any]]) -> None:
    """Write depth (H, W) in metres as a 16-bit PNG in millimetres, in one atomic step.

    Values are rounded to the nearest millimetre and end at 65.535 m; 0, negative and non-finite
    values become 0 = no depth. Missing folders are made.
    """
    if depth.ndim != 2:
        raise DataError(f"{path}: expected depth (H, W), got shape {depth.shape}")
    metres = np.nan_to_num(depth.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    millimetres = np.clip(np.rint(metres / MILLIMETRE), 0, 65535).astype(np.uint16)
    encoded = cv2.imencode(".png", millimetres)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def normalise(
    image: NDArray[np.uint8],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Return an RGB image (H, W, 3) as float32 (3, H, W), shifted and scaled by mean and spread.

    Both are of each channel, for values in 0 to 1.

    Example:
        >>> black = normalise(np.zeros((1, 1, 3), dtype=np.uint8))
        >>> [round(value, 3) for value in black.flatten().tolist()]
        [-2.118, -2.036, -1.804]
    """
    centre, spread = np.asarray(mean), np.asarray(std)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    pixels *= (1 / (255 * spread)).astype(np.float32)[:, None, None]  # in place: half the time
    pixels -= (centre / spread).astype(np.float32)[:, None, None]
    return torch.from_numpy(pixels)


def resize_short_side(array: Array, short_side: int, nearest: bool) -> Array:
    """Resize an image or depth map so that its shorter side has `short_side` pixels.

    Images are interpolated bilinearly, and averaged over areas where they shrink to less than
    half, because two samples per pixel would then alias. Depth must be resized with
    ``nearest=True``: any mixture of two depths lies in empty space between two surfaces.
    """
    height, width = array.shape[:2]
    short = min(height, width)
    if short == short_side:
        return array
    new_height, new_width = (round(extent * short_side / short) for extent in (height, width))
    if nearest:
        # the "exact" variant samples at pixel centres; plain INTER_NEAREST shifts the map
        method = cv2.INTER_NEAREST_EXACT
    else:
        method = cv2.INTER_AREA if short > 2 * short_side else cv2.INTER_LINEAR
    return cast(Array, cv2.resize(array, (new_width, new_height), interpolation=method))


def resize_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize an image to size x size pixels by Pillow's bilinear filter, which averages."""
    if image.shape[:2] == (size, size):
        return image
    batch = torch.tensor(image).permute(2, 0, 1)[None]
    resized = nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _decode(path: str | os.PathLike[str], mode: int) -> NDArray[Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    mark = _END_MARKS.get(content[:2])
    if not content:
        raise DataError(f"{path}: the file is empty; fetch it again")
    if mark is not None and content.rfind(mark, max(0, len(content) - _TAIL)) < 0:
        raise DataError(f"{path}: the file is truncated at {len(content)} bytes; fetch it again")
    decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), mode)
    if decoded is None:
        raise DataError(f"{path}: not a readable image; replace the file, or leave it out")
    return cast(NDArray[Any], decoded)
