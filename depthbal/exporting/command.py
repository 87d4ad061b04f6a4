"""The export command."""

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthbal.data.images import read_image
from depthbal.errors import ConfigError, DepthbalError
from depthbal.exporting.export import export_predictor
from depthbal.exporting.formats import ENDINGS, require_format
from depthbal.io import require_free
from depthbal.predictor import Predictor, load_predictor
from depthbal.training.posthoc import add_posthoc, posthoc_sigma
from depthbal.training.run_config import load_datamodule, require_depth
from depthbal.training.runs import RunFolder

COMPARED = 4
Images = list[NDArray[np.uint8]]
Size = tuple[int, int]


def export(arguments: Sequence[str]) -> None:
    """Write a run as one file for another runtime and print its difference from PyTorch.

    Args:
        arguments: The command line: ``RUN [--format onnx|torch] [--out FILE] [--size H W]
            [--image FILE...] [--readout ...] [--checkpoint last|best] [--posthoc SIGMA]
            [--overwrite]``.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    known = _parser().parse_args(arguments)
    folder = RunFolder(known.run)
    folder.require_checkpoint(known.checkpoint)
    require_depth(folder)
    require_format(known.format)
    if known.out is not None:
        require_free(known.out, known.overwrite)
    sigma = None
    if known.posthoc is not None:
        sigma = posthoc_sigma(known.run, known.checkpoint, known.posthoc).noise_sigma
    predictor = load_predictor(known.run, checkpoint=known.checkpoint, posthoc_sigma=sigma)
    own = known.readout in (None, predictor.readout)
    path = known.out or folder.exported(
        ENDINGS[known.format], known.checkpoint, sigma, None if own else known.readout
    )
    require_free(path, known.overwrite)
    protocol = _protocol(folder.metrics("nyud2_dir", known.checkpoint, sigma), known.readout)
    predictor.readout = known.readout or predictor.readout
    images, what, tested = _images(folder, predictor, known, protocol)
    size = images[0].shape[0], images[0].shape[1]
    if tested not in (None, size):
        protocol |= {"overall": None} if protocol else {}
        _warn_of_size(size, tested, predictor.short_side)
    difference = export_predictor(predictor, known.format, path, images, protocol)
    height, width = size
    print(f"Written: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    print(f"image uint8 (batch, {height}, {width}, 3) RGB -> depth (batch, {height}, {width}) m")
    print(
        f"Largest difference from PyTorch {difference.largest:.2g} m, "
        f"mean {difference.mean:.2g} m, "
        f"on {difference.images} {what}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/export.py",
        description="Write a trained network with normalisation and read-out as one file.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--format", choices=tuple(ENDINGS), default="onnx")
    parser.add_argument(
        "--out",
        type=Path,
        help="file; default: model.onnx or model.pt2 in the run, for other than its defaults "
        "model_best.onnx, model_posthoc_SIGMA.onnx, model_raw.onnx and the like",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="pixels; default: the test images'"
    )
    parser.add_argument(
        "--image", type=Path, nargs="+", help="to compare on; default: test images of the run"
    )
    parser.add_argument("--readout", choices=("raw", "clamped", "mean"), help="default: the run's")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_posthoc(parser)
    return parser


def _images(
    folder: RunFolder, predictor: Predictor, known: argparse.Namespace, protocol: dict[str, Any]
) -> tuple[Images, str, Size | None]:
    """Return the images to compare on, of the size to export, what they are, and the tested size.

    The last is None where neither test images nor the protocol of the run's evaluation say it.
    """
    tested: Size | None
    if known.image is None:
        images, what = _test_images(folder, predictor), "test images"
        tested = images[0].shape[0], images[0].shape[1]
    else:
        images, what = [read_image(path) for path in known.image], "given images"
        tested = tuple(protocol.get("data", {}).get("crop_size") or ()) or None
    height, width = known.size or images[0].shape[:2]
    if height < 1 or width < 1:
        raise ConfigError(f"expected --size of positive height and width, got {height} {width}")
    resized = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    return [np.asarray(image, dtype=np.uint8) for image in resized], what, tested


def _warn_of_size(size: Size, tested: Size, short_side: int | None) -> None:
    """Say that a network shows other depths at another scale than the one it was tested at."""
    way_out = "leave --size out for the tested size"
    if short_side is not None:
        way_out = (
            f"give --size with a short side of {short_side} and shrink pictures to that first, as "
            "load_predictor(RUN).predict does"
        )
    warnings.warn(
        f"the file is for images of {size[0]} x {size[1]} pixels, the run was tested on "
        f"{tested[0]} x {tested[1]}: its metadata give no numbers (protocol.overall is null). "
        f"A network's depth changes with the scale of the picture; {way_out}",
        stacklevel=2,
    )


def _test_images(folder: RunFolder, predictor: Predictor) -> Images:
    """Return some test images as the network sees them, before they are normalised."""
    try:
        data = load_datamodule(folder)
        data.prepare_data()
        data.setup("test")
    except DepthbalError as error:
        raise ConfigError(
            f"the run's test images are not to be had ({error}); compare on others with --image "
            "FILE, best with --size H W of the run's images"
        ) from error
    test = data.test_set
    assert test is not None
    places = np.linspace(0, len(test) - 1, min(COMPARED, len(test)), dtype=int)
    images: Images = []
    for place in places.tolist():
        pixels = (test[place]["image"] * predictor.std + predictor.mean).clamp(0, 1) * 255
        images.append(pixels.permute(1, 2, 0).round().to(torch.uint8).numpy())
    return images


def _protocol(metrics: Path, readout: str | None) -> dict[str, Any]:
    """Return how the network was measured, with the read-out's numbers; empty where it was not."""
    if not metrics.is_file():
        return {}
    content = json.loads(metrics.read_text(encoding="utf-8"))
    protocol = {key: value for key, value in content["protocol"].items() if key != "bins"}
    if readout is None or readout == protocol.get("readout", readout):
        return {**protocol, "overall": content["overall"]}
    measured = content.get("readout", {}).get(readout)
    # without numbers of its own a read-out gets none: those of another would not be true of it
    return {**protocol, "readout": readout, "overall": measured and measured["overall"]}
