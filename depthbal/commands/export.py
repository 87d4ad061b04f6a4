"""``depthbal export``: a run as one file for another runtime."""

import argparse
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbal.commands import add_balancing, make_parser
from depthbal.errors import ConfigError, DepthbalError, RunFolderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthbal.predictor import Predictor

COMPARED = 4
ONNX_NEEDS = ("onnx", "onnxscript", "onnxruntime")


def main(arguments: Sequence[str]) -> None:
    """Write a run as one file and print its difference from PyTorch."""
    parser = make_parser(
        "export",
        "Write a trained depth network with normalisation and read-out as one file, which is "
        "compared with PyTorch before it is kept; or its network as a folder for transformers.",
        "runs/rooms-gai --format onnx",
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder")
    add("--format", choices=("onnx", "torch", "hf"), default="onnx")
    add(
        "--out",
        type=Path,
        help="file; default: model.onnx, model.pt2 or (hf) model in the run, for other than "
        "its defaults model_best.onnx, model_posthoc_SIGMA.onnx, model_raw.onnx and the like",
    )
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="pixels; default: the test images'")
    add("--image", type=Path, nargs="+", help="to compare on; default: test images of the run")
    add("--readout", choices=("raw", "clamped", "mean", "median"), help="default: the run's")
    add("--checkpoint", choices=("last", "best"), default="last")
    add("--overwrite", action="store_true", help="replace an existing file")
    add_balancing(parser)
    known = parser.parse_args(arguments)
    missing = [package for package in ONNX_NEEDS if find_spec(package) is None]
    if known.format == "onnx" and missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}; install them with "
            'pip install "depthbal[export]", or use --format torch'
        )

    from depthbal.commands.predict import open_predictor
    from depthbal.export import ENDINGS, export_folder, export_predictor
    from depthbal.io import require_free
    from depthbal.training.evaluate import balance_names
    from depthbal.training.runs import RunFolder

    run = RunFolder(known.run)
    run.require_run()
    if known.format == "hf":
        balanced = known.balance, known.posthoc, known.tau, known.relative_to
        if known.readout not in (None, "raw") or set(balanced) != {None}:
            raise ConfigError(
                "--format hf holds the network alone, whose output is the raw prediction; leave "
                "out --readout, --balance, --posthoc, --tau and --relative-to"
            )
        known.readout = "raw"
        require_free = _require_new_folder
    if known.out is not None:
        require_free(known.out, known.overwrite)
    predictor = open_predictor(run.path, known.checkpoint, "cpu", known.posthoc, known.balance)
    predictor.set_world(known.tau, known.relative_to)
    if predictor.label.name != "depth":
        raise ConfigError(
            f"{run.path} predicts {predictor.label.name}; only networks of depth are exported"
        )
    names = [] if known.checkpoint == "last" else [known.checkpoint]
    names += balance_names(predictor.posthoc, known.balance, known.tau, known.relative_to)
    other = [] if known.readout in (None, predictor.readout) else [known.readout]
    predictor.readout = known.readout or predictor.readout
    ending = ENDINGS.get(known.format, "")
    path = known.out or run.path / f"{'_'.join(['model', *names, *other])}{ending}"
    require_free(path, known.overwrite)
    protocol = _protocol(run.evaluation(*names), predictor.readout)
    images = _images(known, predictor, protocol)
    count, height, width, _ = images.shape
    if known.format == "hf":
        largest, mean = export_folder(predictor, path, images)
        print(f"Written: {path} (AutoModelForDepthEstimation.from_pretrained)")
        print("It gives the raw prediction, without read-out and balancing")
    else:
        largest, mean = export_predictor(predictor, known.format, path, images, protocol)
        tau = ", tau float32 ()" if hasattr(predictor.criterion, "n_bins") else ""
        size = f"(batch, {height}, {width}"
        print(f"Written: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
        print(f"image uint8 {size}, 3) RGB{tau} -> depth {size}) m")
    on = f"{count} {'given' if known.image else 'test'} images"
    print(f"Largest difference from PyTorch {largest:.2g} m, mean {mean:.2g} m, on {on}")


def _require_new_folder(path: Path, overwrite: bool) -> None:
    """Refuse an ``--out`` that would replace anything but an earlier export."""
    if path.exists() and not (overwrite and (path / "config.json").is_file()):
        raise RunFolderError(
            f"{path} exists; choose another name with --out, or replace an earlier export with "
            "--overwrite"
        )


def _protocol(folder: Path, readout: str) -> dict[str, Any]:
    """Return how the network was measured, with the read-out's numbers; empty where it was not."""
    from depthbal.evaluation.scores import RESULT_FILE, Scores

    if not (folder / RESULT_FILE).is_file():
        return {}
    result = Scores.load(folder).result()
    protocol = {key: value for key, value in result["protocol"].items() if key != "bins"}
    own = readout == protocol["readout"]
    # without numbers of its own a read-out gets none: those of another would not be true of it
    measured = result if own else result.get("readout", {}).get(readout)
    return {**protocol, "readout": readout, "overall": measured and measured["overall"]}


def _images(
    known: argparse.Namespace, predictor: "Predictor", protocol: dict[str, Any]
) -> "NDArray[np.uint8]":
    """Return the images to compare on; the protocol gives no numbers at another size than theirs.

    A network shows other depths at another scale of the picture than the one it was tested at.
    """
    import cv2
    import numpy as np

    from depthbal.data.images import read_image

    if known.image:
        images = [read_image(path) for path in known.image]
        tested = tuple(protocol.get("data", {}).get("crop_size") or ())
    else:
        images = _test_images(known.run, predictor)
        tested = images[0].shape[:2]
    height, width = known.size or images[0].shape[:2]
    if tested and tested != (height, width):
        protocol |= {"overall": None} if protocol else {}
        side = predictor.short_side
        warnings.warn(
            f"the file is for images of {height} x {width} pixels, the run was tested on "
            f"{tested[0]} x {tested[1]}: its metadata give no numbers (protocol.overall is null). "
            "A network's depth changes with the scale of the picture; leave --size out"
            + (f", or give it a short side of {side} and shrink pictures to that" if side else ""),
            stacklevel=2,
        )
    resized = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(resized).astype(np.uint8, copy=False)


def _test_images(run: Path, predictor: "Predictor") -> "list[NDArray[np.uint8]]":
    """Return some test images as the network sees them, before they are normalised."""
    import numpy as np

    from depthbal.training.runs import open_run

    try:
        data = open_run(run).data
        data.prepare_data()
        data.setup("test")
    except DepthbalError as error:
        raise ConfigError(
            f"the run's test images are not to be had ({error}); compare on others with --image "
            "FILE, best with --size H W of the run's images"
        ) from error
    test = data.test_set
    places = np.linspace(0, len(test) - 1, min(COMPARED, len(test)), dtype=int).tolist()
    return [predictor.picture(test[place]["image"]) for place in places]
