"""What an evaluation protocol does to images before they are scored."""

import torch
from torch import Tensor

MIN_DEPTH, MAX_DEPTH = 1e-3, 10.0
"""Metres between which the Eigen protocol's truths count and to which it clamps predictions."""

EIGEN = {
    "name": "eigen",
    "crop": "[45:471, 41:601] of 480 x 640, scaled",
    "prediction_range_m": [MIN_DEPTH, MAX_DEPTH],
    "truth_range_m": [MIN_DEPTH, MAX_DEPTH],
}


def eigen_crop(height: int, width: int) -> tuple[slice, slice]:
    """Return rows and columns of the crop: [45:471, 41:601] of 480 x 640, scaled to other sizes.

    Source: Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale
    Deep Network", NIPS 2014, as evaluated in the works that follow it.

    Example:
        >>> eigen_crop(480, 640)
        (slice(45, 471, None), slice(41, 601, None))
        >>> eigen_crop(240, 320)
        (slice(23, 236, None), slice(21, 301, None))
    """
    # halves up, where Python's `round` would send them to even numbers
    rows = ((2 * pixel * height + 480) // 960 for pixel in (45, 471))
    columns = ((2 * pixel * width + 640) // 1280 for pixel in (41, 601))
    return slice(*rows), slice(*columns)


def eigen_mask(target: Tensor) -> Tensor:
    """Return which pixels of (images, 1, height, width) metres the Eigen protocol scores.

    Example:
        >>> eigen_mask(torch.full((1, 1, 48, 64), 5.0)).sum().item()
        2352
    """
    mask = torch.zeros_like(target, dtype=torch.bool)
    rows, columns = eigen_crop(target.shape[-2], target.shape[-1])
    mask[..., rows, columns] = True
    return mask & (target > MIN_DEPTH) & (target < MAX_DEPTH)
