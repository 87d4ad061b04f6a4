"""What is checked of every split, so that plain mistakes show before training starts."""

from collections.abc import Sequence

import numpy as np

from depthbal.data.dataset import DepthDataset
from depthbal.data.headers import Size
from depthbal.data.inspection import inspect_split
from depthbal.data.pairs import PairSource, load_depth
from depthbal.data.transforms import EvalTransform
from depthbal.errors import DataError

_PROBES = 5


def probe_split(
    source: PairSource,
    transform: EvalTransform,
    min_depth: float,
    split: str,
    values: bool = True,
) -> None:
    """Check all files of a split, and load a few spread samples through its pre-processing.

    Args:
        source: the pairs of the split.
        transform: pre-processing without randomness.
        min_depth: metres from which a pixel is valid.
        split: what messages call it: "training", "validation", "test".
        values: read every depth map and check its values; False where that is done later anyway.

    Raises:
        DataError: an empty split, an unreadable or plainly wrong pair, samples of different
            sizes that cannot form a batch, or not a single valid pixel in the whole split.
    """
    size = len(source)
    if size == 0:
        raise DataError(f"the {split} split is empty; expected at least one pair")
    sizes = inspect_split(source, split, values)
    dataset = DepthDataset(source, transform)
    probes = sorted({round(step * (size - 1) / (_PROBES - 1)) for step in range(_PROBES)})
    shapes, any_valid = _shapes(sizes, transform), False
    for index in probes:
        sample = dataset[index]
        shapes[_extents(sample["image"].shape[1:])] = source.name(index)
        any_valid = any_valid or bool((sample["depth"] >= min_depth).any())
    if len(shapes) > 1:
        listed = ", ".join(f"{name}: {h} x {w}" for (h, w), name in shapes.items())
        raise DataError(
            f"images of the {split} split differ in size ({listed}) and cannot form a batch; "
            "set short_side and crop_size"
        )
    if not any_valid and not _has_valid_pixel(source, transform, min_depth):
        raise DataError(
            f"the {split} split has no pixel with depth of at least {min_depth:g} m; "
            "check scale and invalid, or lower min_depth"
        )


def _shapes(sizes: dict[Size, str], transform: EvalTransform) -> dict[Size, str]:
    """Return the sizes that pre-processing makes of stored sizes, each with a pair that has it."""
    shapes = {}
    for size, name in sizes.items():
        try:
            shapes[
                _extents(transform.crop(transform.resize(np.empty(size, np.uint8), True)).shape)
            ] = name
        except DataError as error:  # a transform knows the sizes but not the file
            raise DataError(f"{name}: {error}") from error
    return shapes


def _extents(shape: Sequence[int]) -> Size:
    height, width = shape
    return height, width


def _has_valid_pixel(source: PairSource, transform: EvalTransform, min_depth: float) -> bool:
    return any(
        bool((transform.depth(load_depth(source, index)) >= min_depth).any())
        for index in range(len(source))
    )
