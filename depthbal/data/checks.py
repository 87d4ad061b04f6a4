"""What must hold for every pair of image and depth, whatever it was read from."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.errors import DataError

PLAUSIBLE_METRES = (0.1, 100.0)
# A lens cap or a hand leaves a few odd values; fewer valid pixels than this share prove no unit.
_MIN_SHARE = 0.01


def check_pair(image: NDArray[Any], depth: NDArray[Any], name: str) -> None:
    """Check shapes and types of a pair, and that its depth is finite and plausibly in metres.

    Args:
        image: must be uint8 (H, W, 3).
        depth: must be float32 (H, W), metres, 0 = no depth.
        name: what the message calls the pair.

    Raises:
        DataError: naming the pair, what was expected and what came.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{name}: expected an image uint8 (H, W, 3), got {image.dtype} {image.shape}"
        )
    if depth.shape != image.shape[:2]:
        raise DataError(
            f"{name}: the depth map is {_size(depth.shape)} but its image {_size(image.shape)} "
            "(height x width); export both at the same size"
        )
    check_depth(depth, name)


def check_depth(depth: NDArray[Any], name: str) -> None:
    """Check that a depth map is float32, finite, not negative and not in a wrong unit.

    Raises:
        DataError: naming the pair, what was expected and what came.

    Example:
        >>> check_depth(np.full((2, 2), 2350, dtype=np.float32), "a.npy")
        Traceback (most recent call last):
        ...
        depthbal.errors.DataError: a.npy: all 4 valid depths lie outside 0.1 to 100 m \
(median 2350 m), so the unit is wrong; set scale to 0.001 times what it is now
    """
    if depth.dtype != np.float32:
        raise DataError(f"{name}: expected depth as float32 metres, got {depth.dtype}")
    if depth.size == 0:
        raise DataError(f"{name}: the depth map is empty")
    low, high = float(depth.min()), float(depth.max())  # NaN and infinity survive both
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int(np.count_nonzero(~np.isfinite(depth)))
        raise DataError(
            f"{name}: {count} of {depth.size} depth values are NaN or infinite; "
            "write 0 where there is no depth"
        )
    if low < 0:
        raise DataError(
            f"{name}: smallest depth is {low:g} m; expected 0 = no depth and positive metres "
            "(if negative values mark missing depth, list them in invalid)"
        )
    if high < PLAUSIBLE_METRES[0] or high > PLAUSIBLE_METRES[1]:
        _check_unit(depth, name)


def _check_unit(depth: NDArray[Any], name: str) -> None:
    valid = depth[depth > 0]
    if valid.size < _MIN_SHARE * depth.size or valid.size == 0:
        return
    low, high = PLAUSIBLE_METRES
    if np.any((valid >= low) & (valid <= high)):
        return
    median = float(np.median(valid))
    factor = 10.0 ** -round(math.log10(median / 2))
    raise DataError(
        f"{name}: all {valid.size} valid depths lie outside {low:g} to {high:g} m (median "
        f"{median:g} m), so the unit is wrong; set scale to {factor:g} times what it is now"
    )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(extent) for extent in shape[:2])
