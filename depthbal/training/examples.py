"""Example images of an evaluation, for reports and for looking at."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.evaluation import Evaluation
from depthbal.files import replacing
from depthbal.predictor import Predictor
from depthbal.training.pictures import comparison, save_picture
from depthbal.training.scoring import ScoredSplit, predicted

LONGEST_SIDE = 320
"""Pixels of a kept example: 24 of them make a few megabytes."""

Arrays = dict[str, npt.NDArray[np.generic]]


@torch.no_grad()
def make_examples(evaluation: Evaluation, split: ScoredSplit, predictor: Predictor) -> Arrays:
    """Predict the images that an evaluation chose once more, and return the content of a file.

    Args:
        evaluation: After the whole split was scored.
        split: Where the images are.
        predictor: The one that was scored.

    Returns:
        Per example, in the order best, median, worst, rare: "image_00" (H, W, 3) uint8 RGB,
        "truth_00" and "pred_00" (H, W) float32 metres (truth 0 = no depth; the main read-out as it
        was scored, to the millimetre), longest side at most 320. For all: "index", "name", "reason"
        and "rmse" (metres over all scored pixels of the image at full size).
    """
    chosen = evaluation.examples()
    arrays: Arrays = {
        "index": np.array([example.index for example in chosen], dtype=np.int64),
        "name": np.array([evaluation.names[example.index] for example in chosen], dtype=np.str_),
        "reason": np.array([example.reason for example in chosen], dtype=np.str_),
        "rmse": np.array([example.rmse for example in chosen], dtype=np.float64),
    }
    for number, example in enumerate(chosen):
        batch = split.one(example.index)
        raw = predicted(predictor, batch, [evaluation.names[example.index]])
        preds = evaluation.scored(predictor.read_out(raw, (predictor.readout,))[predictor.readout])
        truth = batch.target[0, 0].cpu().numpy()
        size = _kept_size(*truth.shape)
        pixels = _as_picture(batch.images[0], predictor)
        arrays[f"image_{number:02d}"] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        # depth is picked, not mixed: no value between an object and what is behind it
        for name, depth in (("truth", truth), ("pred", preds[0, 0].float().cpu().numpy())):
            kept = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
            # digits below a sensor's own make the file half as large again
            arrays[f"{name}_{number:02d}"] = kept.astype(np.float32).round(3)
    return arrays


def save_examples(path: Path, examples: Arrays) -> None:
    """Write what `make_examples` returned as a compressed npz file, complete or not at all."""
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **examples)  # type: ignore[arg-type]


def save_pictures(folder: Path, examples: Arrays) -> None:
    """Write examples as pictures test_INDEX.png, in place of those of an earlier evaluation."""
    wanted = {
        folder / f"test_{index:05d}.png": number
        for number, index in enumerate(examples["index"].tolist())
    }
    for path, number in wanted.items():
        image, truth, preds = (
            examples[f"{part}_{number:02d}"] for part in ("image", "truth", "pred")
        )
        save_picture(path, comparison(image, truth, preds))  # type: ignore[arg-type]
    for old in set(folder.glob("test_*.png")) - set(wanted):
        old.unlink()


def _kept_size(height: int, width: int) -> tuple[int, int]:
    """Return (width, height) with the longest side at most 320 pixels."""
    share = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(width * share)), max(1, round(height * share))


def _as_picture(image: Tensor, predictor: Predictor) -> npt.NDArray[np.uint8]:
    """Undo the normalisation of one image (3, H, W)."""
    pixels = (image * predictor.std + predictor.mean).clamp(0, 1) * 255
    picture: npt.NDArray[np.uint8] = pixels.permute(1, 2, 0).round().byte().cpu().numpy()
    return picture
