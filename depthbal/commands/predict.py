"""``depthbal predict``: a run applied to pictures."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbal.commands.evaluate import add_posthoc
from depthbal.errors import ConfigError, RunFolderError

if TYPE_CHECKING:
    from depthbal.predictor import Predictor

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def main(arguments: Sequence[str]) -> None:
    """Write what a network says of every picture."""
    parser = argparse.ArgumentParser(
        prog="depthbal predict",
        description="Networks of depth: NAME_depth.png (16 bit, millimetres) and NAME_colour.png "
        "for every picture. Networks of one label: a line each in a csv file, with its 68 %% "
        "interval. Networks of several outputs (human meshes): NAME.npz.",
        epilog="Example: depthbal predict runs/rooms-gai photo.jpg --out predictions",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="pictures, or folders of them"
    )
    parser.add_argument("--out", type=Path, help="folder (default: here), or the csv file")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument("--device", help="default: the first GPU, else cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_posthoc(parser)
    known = parser.parse_args(arguments)
    pictures = _pictures(known.images)
    predictor = open_predictor(
        known.run, known.checkpoint, known.device, known.posthoc, known.balance
    )

    import torch

    with torch.no_grad():
        shown = predictor.eval().model(predictor.prepare(pictures[0])[0])
    if not isinstance(shown, torch.Tensor):
        _write_parts(predictor, pictures, known.out or Path(), known.overwrite)
    elif shown.ndim > 2:
        _write_maps(predictor, pictures, known.out or Path(), known.overwrite)
    else:
        _write_labels(predictor, pictures, known.out, known.overwrite)


def open_predictor(
    path: Path,
    checkpoint: Any = "last",
    device: str | None = None,
    posthoc: Any = None,
    balance: Path | None = None,
) -> "Predictor":
    """Return the network of a run folder, of any class its config names, or of a checkpoint."""
    from depthbal.predictor import load_balance, load_predictor, require_plain
    from depthbal.training.evaluate import balance_afterwards, posthoc_sigma
    from depthbal.training.optimisation import default_device
    from depthbal.training.runs import RunFolder, open_run

    place = device or default_device()
    if not RunFolder(path).is_run():
        if posthoc == "auto":
            raise ConfigError(f"--posthoc auto needs a run folder, {path} is none; give a sigma")
        predictor = load_predictor(path, device=place, checkpoint=checkpoint, posthoc_sigma=posthoc)
    else:
        run = open_run(path)
        task = run.task(checkpoint)
        if posthoc is not None:
            sigma, source = posthoc_sigma(run, checkpoint, posthoc)
            print(f"Balanced afterwards with sigma {sigma:g} {task.label.unit} ({source})")
            balance_afterwards(run, task, sigma, source)
        predictor = task.predictor()
        predictor.label = task.label
    if balance is not None:
        require_plain(predictor.criterion, str(path))
        predictor.posthoc = load_balance(balance, predictor.label)
        predictor.label_range = predictor.posthoc.label_range
    return predictor.to(place).eval()


def _pictures(given: Sequence[Path]) -> list[Path]:
    """Return the pictures, those of a folder in the order of their names."""
    found: list[Path] = []
    for path in given:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES)
        if path.is_dir() and not inside:
            raise ConfigError(f"there is no picture in the folder {path}")
        found += inside if path.is_dir() else [path]
    return found


def output_paths(
    pictures: Sequence[Path], out: Path, endings: Sequence[str], overwrite: bool = False
) -> list[list[Path]]:
    """Return the files of every picture, one per ending.

    Raises:
        ConfigError: Two pictures of one name would write the same files.
        RunFolderError: A file exists and ``overwrite`` is False.

    Example:
        >>> output_paths([Path("a/room.jpg")], Path("out"), ["_depth.png"])[0][0].name
        'room_depth.png'
    """
    stems = [picture.stem for picture in pictures]
    if doubled := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ConfigError(
            f"several images are named {', '.join(doubled[:3])}; predict them into different "
            "folders with --out"
        )
    paths = [[out / f"{stem}{ending}" for ending in endings] for stem in stems]
    existing = [path for row in paths for path in row if path.exists()]
    if existing and not overwrite:
        raise RunFolderError(
            f"{existing[0]} exists; choose another folder with --out, or give --overwrite"
        )
    return paths


def _track(pictures: Sequence[Any]) -> Any:
    from rich.progress import track

    from depthbal.io import show_progress

    return track(pictures, "Predicting", transient=True, disable=not show_progress())


def _write_maps(predictor: "Predictor", pictures: list[Path], out: Path, overwrite: bool) -> None:
    from depthbal.data.images import write_depth_png
    from depthbal.training.examples import colour_depth, save_picture

    targets = output_paths(pictures, out, ("_depth.png", "_colour.png"), overwrite)
    for picture, (depth_path, colour_path) in _track(list(zip(pictures, targets, strict=True))):
        depth = predictor.predict(picture)
        out.mkdir(parents=True, exist_ok=True)
        write_depth_png(depth_path, depth)
        save_picture(colour_path, colour_depth(depth))
        print(f"{picture}: {depth.min():.2f} to {depth.max():.2f} m, {depth_path}, {colour_path}")


def _write_labels(
    predictor: "Predictor", pictures: list[Path], out: Path | None, overwrite: bool
) -> None:
    from depthbal.io import replacing, require_free

    name = predictor.label.name
    path = out or Path(f"{name.replace(' ', '_')}s.csv")
    require_free(path, overwrite)
    rows = []
    for picture in _track(pictures):
        value, ends = predictor.predict_with_interval(picture)
        rows.append([str(picture), f"{float(value):.4g}"])
        rows[-1] += [f"{float(end):.4g}" for end in ends] if ends is not None else ["", ""]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", name, f"{name}_low", f"{name}_high"])
        writer.writerows(rows)
    print(f"{len(rows)} pictures: {path} ({name} in {predictor.label.unit}, 68 % interval)")


def _write_parts(predictor: "Predictor", pictures: list[Path], out: Path, overwrite: bool) -> None:
    import numpy as np

    from depthbal.io import replacing

    for picture, (path,) in zip(
        _track(pictures), output_paths(pictures, out, (".npz",), overwrite), strict=True
    ):
        parts = predictor.outputs(picture)
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **parts)  # type: ignore[arg-type]
        shapes = ", ".join(f"{name} {value.shape}" for name, value in parts.items())
        print(f"{picture}: {path} ({shapes})")
