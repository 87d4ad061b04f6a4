"""Example images of an evaluation of depth, for reports and for looking at."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from depthbal.data.images import measured
from depthbal.evaluation import Scores
from depthbal.io import replacing

LONGEST_SIDE = 320
"""Pixels of a kept example: 24 of them make a few megabytes."""

Show = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]]


def save_examples(scores: Scores, show: Show, folder: Path, none: float = 0.0) -> None:
    """Write examples.npz and predictions/ of the images that the scores chose.

    examples.npz holds per example, in the order best, median, worst, rare: "image_00" (H, W, 3)
    uint8 RGB, "truth_00" and "pred_00" (H, W) float32 metres (the main read-out as it was scored),
    longest side at most 320. For all: "index", "name", "reason", "rmse" (metres, of all scored
    pixels at full size), and "none", what stands in the truth where there is none, if not 0.

    `show` leads from an image's place in the data set to its picture, truth and prediction.
    """
    chosen, names, pictures = scores.examples(), scores.names, folder / "predictions"
    arrays: dict[str, NDArray[Any]] = {
        "index": np.array([example.index for example in chosen], dtype=np.int64),
        "name": np.array([names[example.index] for example in chosen], dtype=np.str_),
        "reason": np.array([example.reason for example in chosen], dtype=np.str_),
        "rmse": np.array([example.rmse for example in chosen], dtype=np.float64),
    }
    for number, example in enumerate(chosen):
        picture, truth, preds = show(example.index)
        share = min(1.0, LONGEST_SIDE / max(truth.shape))
        size = max(1, round(truth.shape[1] * share)), max(1, round(truth.shape[0] * share))
        image = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        # depth is picked, not mixed: no value between an object and what is behind it
        depths = (
            cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST) for depth in (truth, preds)
        )
        # digits below a sensor's own make the file half as large again
        truth, preds = (depth.astype(np.float32).round(3) for depth in depths)
        parts = {"image": image, "truth": truth, "pred": preds}
        arrays |= {f"{name}_{number:02d}": part for name, part in parts.items()}
        values = truth[measured(truth, none)]  # both depths are shown on the truth's scale
        scale = (float(values.min()), float(values.max())) if values.size else None
        shown = [image, *(colour_depth(depth, scale, none) for depth in (truth, preds))]
        save_picture(pictures / f"test_{example.index:05d}.png", np.concatenate(shown, axis=1))
    if none != 0:
        arrays["none"] = np.array(none)
    with replacing(folder / "examples.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    wanted = {pictures / f"test_{example.index:05d}.png" for example in chosen}
    for old in set(pictures.glob("test_*.png")) - wanted:  # of an earlier evaluation
        old.unlink()


def colour_depth(
    depth: NDArray[np.float32],
    depth_range: tuple[float, float] | None = None,
    none: float = 0.0,
) -> NDArray[np.uint8]:
    """Return depth (H, W) in metres as RGB (H, W, 3); near is blue, far red, no depth black.

    The colours span ``depth_range`` in metres, by default the map's own.
    """
    known = measured(depth, none)
    if depth_range is None:
        values = depth[known]
        depth_range = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low, high = depth_range
    scaled = np.clip((depth - low) / max(high - low, 1e-6), 0.0, 1.0)
    coloured = matplotlib.colormaps["turbo"](scaled, bytes=True)[..., :3]
    picture: NDArray[np.uint8] = np.where(known[..., None], coloured, 0).astype(np.uint8)
    return picture


def save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture as PNG, complete or not at all."""
    with replacing(path) as temporary:
        imsave(temporary, picture)


def save_video(path: Path, pictures: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """Write RGB pictures of one size as MPEG-4, `rate` a second, complete or not at all."""
    writer = cv2.VideoWriter()
    with replacing(path) as temporary:
        for picture in pictures:
            if not writer.isOpened():
                code, size = cv2.VideoWriter.fourcc(*"mp4v"), picture.shape[1::-1]
                writer.open(str(temporary), code, rate or 25.0, size)
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        writer.release()
