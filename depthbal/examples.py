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

Arrays = dict[str, NDArray[Any]]
Show = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]]


def save_examples(scores: Scores, show: Show, folder: Path, none: float = 0.0) -> None:
    """Write examples.npz and predictions/ of the images that the scores chose.

    examples.npz holds per example, in the order best, median, worst, rare: "image_00" (H, W, 3)
    uint8 RGB, "truth_00" and "pred_00" (H, W) float32 metres (the main read-out as it was scored),
    longest side at most 320. For all: "index", "name", "reason", "rmse" (metres, of all scored
    pixels at full size), and "none", what stands in the truth where there is none, if not 0.

    `show` leads from an image's place in the data set to its picture, truth and prediction.
    """
    chosen, names = scores.examples(), scores.names
    arrays: Arrays = {
        "index": np.array([example.index for example in chosen], dtype=np.int64),
        "name": np.array([names[example.index] for example in chosen], dtype=np.str_),
        "reason": np.array([example.reason for example in chosen], dtype=np.str_),
        "rmse": np.array([example.rmse for example in chosen], dtype=np.float64),
    }
    for number, example in enumerate(chosen):
        picture, truth, preds = show(example.index)
        share = min(1.0, LONGEST_SIDE / max(truth.shape))
        size = max(1, round(truth.shape[1] * share)), max(1, round(truth.shape[0] * share))
        arrays[f"image_{number:02d}"] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        # depth is picked, not mixed: no value between an object and what is behind it
        for name, depth in (("truth", truth), ("pred", preds)):
            kept = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
            # digits below a sensor's own make the file half as large again
            arrays[f"{name}_{number:02d}"] = kept.astype(np.float32).round(3)
    if none != 0:
        arrays["none"] = np.array(none)
    with replacing(folder / "examples.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    save_pictures(folder / "predictions", arrays)


def save_pictures(folder: Path, examples: Arrays) -> None:
    """Write image, truth and prediction side by side, in place of those of an earlier evaluation.

    Both depths are on the truth's scale.
    """
    wanted = {folder / f"test_{index:05d}.png": i for i, index in enumerate(examples["index"])}
    for path, number in wanted.items():
        image, truth, preds = (examples[f"{p}_{number:02d}"] for p in ("image", "truth", "pred"))
        none = float(examples.get("none", 0.0))
        values = truth[measured(truth, none)]
        scale = (float(values.min()), float(values.max())) if values.size else None
        parts = [image, *(colour_depth(one, scale, none) for one in (truth, preds))]
        save_picture(path, np.concatenate(parts, axis=1))
    for old in set(folder.glob("test_*.png")) - set(wanted):
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
