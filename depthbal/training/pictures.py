"""Depth as pictures."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from depthbal.files import replacing

COLORMAP = "turbo"


def colour_depth(
    depth: NDArray[np.float32], depth_range: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Return depth (H, W) in metres as RGB (H, W, 3); near is blue, far red, no depth black.

    Args:
        depth: Metres; 0 and below is no depth.
        depth_range: Metres of the colour scale's ends; None takes the map's own.

    Example:
        >>> colour_depth(np.array([[0.0, 1.0, 2.0]], dtype=np.float32))[0, 0].tolist()
        [0, 0, 0]
    """
    known = depth > 0
    if depth_range is None:
        values = depth[known]
        depth_range = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low, high = depth_range
    scaled = np.clip((depth - low) / max(high - low, 1e-6), 0.0, 1.0)
    coloured = matplotlib.colormaps[COLORMAP](scaled, bytes=True)[..., :3]
    picture: NDArray[np.uint8] = np.where(known[..., None], coloured, 0).astype(np.uint8)
    return picture


def comparison(
    image: NDArray[np.uint8], truth: NDArray[np.float32], preds: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return image, true and predicted depth side by side, both depths on the truth's scale.

    Args:
        image: (H, W, 3) RGB.
        truth: (H, W) metres.
        preds: (H, W) metres.
    """
    values = truth[truth > 0]
    scale = (float(values.min()), float(values.max())) if values.size else None
    return np.concatenate([image, colour_depth(truth, scale), colour_depth(preds, scale)], axis=1)


def save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture as PNG, complete or not at all."""
    with replacing(path) as temporary:
        imsave(temporary, picture)
