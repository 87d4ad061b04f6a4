"""What must hold for pairs of image and depth, whatever they were read from."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbal.errors import DataError

if TYPE_CHECKING:
    from depthbal.data.dataset import DepthDataset

PLAUSIBLE_METRES = (0.1, 100.0)
# A lens cap or a hand leaves a few odd values; fewer valid pixels than this share prove no unit.
_MIN_SHARE = 0.01
_SAMPLED = 24  # pairs that a split is judged by before training


def check_pair(image: NDArray[Any], depth: NDArray[Any], name: str) -> None:
    """Check shapes and types of a pair, and that its depth is finite and plausibly in metres."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{name}: expected an image uint8 (H, W, 3), got {image.dtype} {image.shape}"
        )
    if depth.shape != image.shape[:2]:
        sizes = [" x ".join(map(str, array.shape[:2])) for array in (depth, image)]
        raise DataError(
            f"{name}: the depth map is {sizes[0]} but its image {sizes[1]} (height x width); "
            "export both at the same size"
        )
    check_depth(depth, name)


def check_depth(depth: NDArray[Any], name: str) -> None:
    """Check that a depth map is float32, finite, not negative and not in a wrong unit.

    Example:
        >>> check_depth(np.full((2, 2), 2350, dtype=np.float32), "a.npy")
        Traceback (most recent call last):
        ...
        depthbal.errors.DataError: a.npy: all 4 valid depths lie outside 0.1 to 100 m \
(median 2350 m), so the unit is wrong; set scale to 0.001 times what it is now
    """
    if depth.dtype != np.float32 or depth.size == 0:
        raise DataError(
            f"{name}: expected depth as float32 metres, got {depth.dtype} {depth.shape}"
        )
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
    low, high = PLAUSIBLE_METRES
    few = valid.size < _MIN_SHARE * depth.size or valid.size == 0
    if few or np.any((valid >= low) & (valid <= high)):
        return
    median = float(np.median(valid))
    factor = 10.0 ** -round(math.log10(median / 2))
    raise DataError(
        f"{name}: all {valid.size} valid depths lie outside {low:g} to {high:g} m (median "
        f"{median:g} m), so the unit is wrong; set scale to {factor:g} times what it is now"
    )


def check_split(data: "DepthDataset", min_depth: float, split: str) -> None:
    """Judge a split, before training, by pairs spread over it and pre-processed without chance.

    Found are an empty split, unreadable or plainly wrong pairs, samples of different sizes that
    cannot form a batch, and a whole split without a pixel of at least `min_depth` metres.
    """
    size = len(data)
    if size == 0:
        raise DataError(f"the {split} split is empty; expected at least one pair")
    shapes, any_valid = {}, False
    for index in sorted(set(np.linspace(0, size - 1, _SAMPLED).round().astype(int).tolist())):
        sample = data[index]
        shapes[tuple(sample["image"].shape[1:])] = data.source.name(index)
        any_valid = any_valid or bool((sample["depth"] >= min_depth).any())
    if len(shapes) > 1:
        listed = ", ".join(f"{name}: {h} x {w}" for (h, w), name in shapes.items())
        raise DataError(
            f"images of the {split} split differ in size ({listed}) and cannot form a batch; "
            "set short_side and crop_size"
        )
    depths = (data[index]["depth"] for index in range(size))
    if not any_valid and not any(bool((depth >= min_depth).any()) for depth in depths):
        raise DataError(
            f"the {split} split has no pixel with depth of at least {min_depth:g} m; "
            "check scale and invalid, or lower min_depth"
        )
