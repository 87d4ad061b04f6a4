"""The prediction command."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from depthbal.data.images import write_depth_png
from depthbal.errors import ConfigError, RunFolderError
from depthbal.predictor import load_predictor
from depthbal.training.callbacks import show_progress
from depthbal.training.pictures import colour_depth, save_picture
from depthbal.training.posthoc import add_posthoc, posthoc_sigma
from depthbal.training.precision import default_device
from depthbal.training.run_config import require_depth
from depthbal.training.runs import RunFolder


def predict(arguments: Sequence[str]) -> None:
    """Write the depth of every picture as 16-bit millimetre PNG and as a colour picture.

    Args:
        arguments: The command line: ``RUN IMAGE... [--out DIR] [--checkpoint last|best]
            [--posthoc SIGMA] [--overwrite]``.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = argparse.ArgumentParser(
        prog="tools/predict.py",
        description="Writes NAME_depth.png (16 bit, millimetres) and NAME_colour.png.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--out", type=Path, default=Path(), help="folder; default: here")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_posthoc(parser)
    known = parser.parse_args(arguments)
    _require_pictures(known.run, known.images)
    targets = output_paths(known.images, known.out, known.overwrite)
    sigma = None
    if known.posthoc is not None:
        balance = posthoc_sigma(known.run, known.checkpoint, known.posthoc)
        sigma = balance.noise_sigma
        print(f"Balanced afterwards with sigma {sigma:g} m ({balance.source})")
    predictor = load_predictor(
        known.run, device=known.device, checkpoint=known.checkpoint, posthoc_sigma=sigma
    )
    pairs = list(zip(known.images, targets, strict=True))
    for image, (depth_path, colour_path) in track(
        pairs, "Predicting", transient=True, disable=not show_progress()
    ):
        depth = predictor.predict(image)
        known.out.mkdir(parents=True, exist_ok=True)
        write_depth_png(depth_path, depth)
        save_picture(colour_path, colour_depth(depth))
        print(f"{image}: {depth.min():.2f} to {depth.max():.2f} m, {depth_path}, {colour_path}")


def _require_pictures(run: Path, images: Sequence[Path]) -> None:
    """Refuse runs of something else than depth, and folders in place of pictures."""
    require_depth(RunFolder(run))
    for image in images:
        if image.is_dir():
            raise ConfigError(f"{image} is a folder; name its pictures, such as {image}/*.jpg")


def output_paths(
    images: Sequence[Path], out: Path, overwrite: bool = False
) -> list[tuple[Path, Path]]:
    """Return the depth and colour file of every image.

    Raises:
        ConfigError: Two images of one name would write the same files.
        RunFolderError: A file exists and ``overwrite`` is False.

    Example:
        >>> depth, colour = output_paths([Path("a/room.jpg")], Path("out"))[0]
        >>> depth.name, colour.name
        ('room_depth.png', 'room_colour.png')
    """
    stems = [image.stem for image in images]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise ConfigError(
            f"several images are named {', '.join(doubled)}; predict them into different folders "
            "with --out"
        )
    pairs = [(out / f"{stem}_depth.png", out / f"{stem}_colour.png") for stem in stems]
    existing = [str(path) for pair in pairs for path in pair if path.exists()]
    if existing and not overwrite:
        raise RunFolderError(
            f"{existing[0]} exists; choose another folder with --out, or give --overwrite"
        )
    return pairs
