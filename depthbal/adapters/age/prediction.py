"""The ages of one's own pictures, by a finished run."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track

from depthbal.adapters.age.images import ImageTransform
from depthbal.checkpoint import find_checkpoint, read_checkpoint
from depthbal.data.headers import check_files
from depthbal.data.images import IMAGE_SUFFIXES, read_image
from depthbal.errors import ConfigError, DataError
from depthbal.files import replacing, require_free
from depthbal.predictor import load_predictor
from depthbal.training.callbacks import show_progress


class PredictedAge(NamedTuple):
    """The age of a picture, and the ends of its 68 % interval; None for a loss without sigma."""

    age: float
    low: float | None
    high: float | None


def predict_ages(
    run: str | Path, images: Sequence[str | Path], device: str | torch.device = "cpu"
) -> list[PredictedAge]:
    """Return the ages of pictures, read out as in the run's own evaluation.

    Args:
        run: A run folder of tools/train_age.py, or a checkpoint file.
        images: Image files of any size; each is resized to the square that the network knows.
        device: Where to compute.

    Raises:
        RunFolderError: No such run or checkpoint.
        CheckpointError: The checkpoint is damaged or of a class that is not ours.
        ConfigError: The run predicts something else than one label per image.
        DataError: A picture is unreadable, which is found before the first prediction where its
            first and last bytes tell.

    Example:
        >>> import cv2, torch
        >>> from depthbal.adapters.age import AgeRegressor, DrawnAgesDataModule, predict_ages
        >>> from depthbal.losses import BNILoss
        >>> from depthbal.training.checkpoint_entry import describe_checkpoint
        >>> data = DrawnAgesDataModule()
        >>> model, loss = AgeRegressor("test_resnet", library="timm"), BNILoss(init_noise_sigma=8)
        >>> loss.set_prior(data.train_histogram())  # a training does this, and trains
        >>> model.initialise_bias(40.0)
        >>> parts = torch.nn.ModuleDict({"model": model, "criterion": loss}).state_dict()
        >>> entry = describe_checkpoint(model, loss, data.input_spec(), "mean")
        >>> folder = getfixture("tmp_path")
        >>> torch.save({"depthbal": entry, "state_dict": parts}, folder / "last.ckpt")
        >>> face = torch.randint(0, 256, (200, 150, 3), dtype=torch.uint8).numpy()
        >>> cv2.imwrite(folder / "me.jpg", face)
        True
        >>> (mine,) = predict_ages(folder / "last.ckpt", [folder / "me.jpg"])
        >>> 0.5 < mine.low < mine.age < mine.high < 101.5
        True
    """
    file = find_checkpoint(run, "last")
    size = read_checkpoint(file)["depthbal"]["input"].get("size")
    if size is None:
        raise ConfigError(f"{run} is no run of tools/train_age.py; for depth: tools/predict.py")
    for image in images:
        check_files(str(image), None, str(image))
    predictor, transform = load_predictor(file, device=device), ImageTransform(size)
    found = []
    for image in track(images, "Predicting", transient=True, disable=not show_progress()):
        pixels = transform(read_image(image), seed=0)[None].to(device)
        with torch.no_grad():
            raw = predictor.model(pixels).float()
        age = predictor.read_out(raw, [predictor.readout])[predictor.readout].item()
        ends = predictor.interval(raw)
        low, high = (None, None) if ends is None else (end.item() for end in ends)
        found.append(PredictedAge(age, low, high))
    return found


def write_ages(run: Path, folder: Path, out: Path, overwrite: bool, device: str) -> None:
    """Write the ages of all pictures in a folder and below as a csv file, path,age,low,high.

    Args:
        run: A run folder of tools/train_age.py, or a checkpoint file.
        folder: The pictures, to which the paths in the csv file are relative.
        out: The csv file.
        overwrite: Replace it where it exists.
        device: Where to compute.

    Raises:
        RunFolderError: `out` exists or is a folder.
        DataError: There is no folder, or no picture in it.
        DepthbalError: As `predict_ages`.
    """
    require_free(out, overwrite)
    images = _pictures_in(folder)
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as lines:
        ages = predict_ages(run, images, device)  # where nothing can be written, nothing is begun
        rows = csv.writer(lines)
        rows.writerow(["path", *PredictedAge._fields])
        for image, found in zip(images, ages, strict=True):
            values = ["" if value is None else f"{value:.2f}" for value in found]
            rows.writerow([image.relative_to(folder).as_posix(), *values])
    print(f"{len(images)} ages: {out}")


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        there = "is a file, not a folder of pictures" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {there}; give --predict RUN FOLDER the folder of the pictures")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not (images := sorted(path for path in files if path.is_file())):
        raise DataError(f"{folder} has no pictures (endings: {', '.join(IMAGE_SUFFIXES)})")
    return images
