"""What the numbers of depth files mean: no depth, sky, inverse depth, distance along a ray."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthbal.data.images import Depth, only_depth, to_metres
from depthbal.errors import DataError

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels; the centre of the upper left pixel is at column 0 and row 0."""


class Coding(NamedTuple):
    """What stored numbers say beside their scale; `FolderDataModule` documents the first three."""

    invalid: tuple[float, ...] = (0.0,)
    sky: tuple[float, ...] = ()
    inverse: bool = False
    rotate_bits: int = 0  # to the right, before anything else
    offset: float = 0.0  # added to disparities
    none: float = 0.0  # what is written where there is none; NaN where 0 is a label


def decoded(raw: NDArray[Any], scale: float, coding: Coding) -> Depth:
    """Return stored numbers as float32 metres: 0 = no depth, inf = known to lie beyond."""
    if raw.dtype in (np.uint8, np.uint16):
        return np.take(_levels(raw.dtype, scale, coding), raw)
    return _meaning(raw, scale, coding)


@lru_cache(maxsize=8)
def _levels(dtype: np.dtype[Any], scale: float, coding: Coding) -> Depth:
    """Return what every number of 8 or 16 bit means."""
    return _meaning(np.arange(np.iinfo(dtype).max + 1, dtype=dtype), scale, coding)


def _meaning(raw: NDArray[Any], scale: float, coding: Coding) -> Depth:
    if bits := coding.rotate_bits:
        raw = raw >> bits | raw << 8 * raw.itemsize - bits
    invalid = coding.invalid
    if raw.dtype == np.uint16 and invalid:
        invalid = (*invalid, 65535)  # where sensors and renderers see nothing or no end
    shifted = raw + np.float32(coding.offset) if coding.offset else raw
    depth = only_depth(to_metres(shifted, scale), none=coding.none)
    if coding.inverse:
        depth = np.divide(1, depth, where=depth > 0, out=np.zeros_like(depth))
    for values, meaning in ((invalid, coding.none), (coding.sky, np.inf)):
        for value in values:
            depth[np.isnan(raw) if np.isnan(value) else raw == value] = meaning
    return depth


@lru_cache(maxsize=8)
def ray_to_z(size: tuple[int, ...], intrinsics: Intrinsics) -> Depth:
    """Return what turns distance along the rays of a camera into depth along its axis, (H, W)."""
    fx, fy, cx, cy = intrinsics
    height, width = size
    if not (0 <= cx < width and 0 <= cy < height):
        raise DataError(
            f"the principal point ({cx:g}, {cy:g}) lies outside a depth map of {width} x {height} "
            "pixels; give --data.intrinsics of this size"
        )
    x, y = (np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy
    return np.asarray(1 / np.sqrt(1 + x**2 + y[:, None] ** 2), np.float32)


def read_calibration(path: Path) -> tuple[float, float]:
    """Return scale and offset of Middlebury's disparities: 1 / metres = scale (d + offset)."""
    try:  # "cam0=[f 0 cx; ...]", "baseline=" in millimetres, "doffs=" in pixels
        lines = dict(re.findall(r"(\w+)\s*=\s*\[?\s*([-+.\deE]+)", path.read_text()))
        focal, baseline, offset = (float(lines[name]) for name in ("cam0", "baseline", "doffs"))
        return 1000 / (focal * baseline), offset
    except (OSError, ValueError, KeyError, ZeroDivisionError) as error:
        raise DataError(
            f"{path}: no calibration with cam0, baseline and doffs ({error!r}), without which "
            "disparities are no depth; put the scene's calib.txt there"
        ) from error
