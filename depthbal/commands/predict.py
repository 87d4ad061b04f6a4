"""``depthbal predict``: a run applied to pictures."""

import csv
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbal.commands import add_posthoc, add_world, make_parser
from depthbal.errors import ConfigError
from depthbal.io import replacing, require_free, show_progress

if TYPE_CHECKING:
    from depthbal.predictor import Predictor


def main(arguments: Sequence[str]) -> None:
    """Write what a network says of every picture."""
    parser = make_parser(
        "predict",
        "Networks of depth: NAME_depth.png (16 bit, millimetres; of another label NAME_LABEL.png, "
        "thousandths of its unit) and NAME_colour.png for every picture. Networks of one label: a "
        "line each in a csv file, with its 68 % interval. Networks of several outputs (human "
        "meshes): NAME.npz.",
        "runs/rooms-gai photo.jpg --out predictions",
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder or checkpoint")
    add("images", type=Path, nargs="+", metavar="IMAGE", help="pictures, or folders of them")
    add("--out", type=Path, help="folder (default: here), or the csv file")
    add("--checkpoint", choices=("last", "best"), default="last")
    add("--device", help="default: the first GPU, else cpu")
    add("--overwrite", action="store_true", help="replace existing files")
    add_posthoc(parser)
    add_world(parser)
    known = parser.parse_args(arguments)

    import torch

    pictures = _pictures(known.images)
    options = known.checkpoint, known.device, known.posthoc, known.balance
    predictor = open_predictor(known.run, *options).set_world(known.tau, known.relative_to)
    with torch.no_grad():
        shown = predictor.model(predictor.prepare(pictures[0])[0])
    if not isinstance(shown, torch.Tensor):
        _write_parts(predictor, pictures, known)
    elif shown.ndim > 2:
        _write_maps(predictor, pictures, known)
    else:
        _write_labels(predictor, pictures, known)


def open_predictor(
    path: Path,
    checkpoint: Any = "last",
    device: str | None = None,
    posthoc: Any = None,
    balance: Path | None = None,
) -> "Predictor":
    """Return the network of a run folder, of any class its config names, or of a checkpoint."""
    from depthbal.predictor import load_balance, load_predictor
    from depthbal.training.evaluate import balance_afterwards, posthoc_sigma
    from depthbal.training.optimisation import default_device
    from depthbal.training.runs import RunFolder, open_run

    place = device or default_device()
    if not RunFolder(path).is_run():
        if posthoc == "auto":
            raise ConfigError(f"--posthoc auto needs a run folder, {path} is none; give a sigma")
        predictor = load_predictor(path, (), place, checkpoint, posthoc)
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
        chosen = load_balance(balance, predictor.criterion, predictor.label, str(path))
        predictor.posthoc, predictor.label_range = chosen, chosen.label_range
    return predictor.to(place).eval()


def _pictures(given: Sequence[Path]) -> list[Path]:
    """Return the pictures, those of a folder in the order of their names."""
    from depthbal.data.images import IMAGE_SUFFIXES

    found: list[Path] = []
    for path in given:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if path.is_dir() and not inside:
            raise ConfigError(f"there is no picture in the folder {path}")
        found += inside if path.is_dir() else [path]
    return found


def _track(pictures: Sequence[Path]) -> Iterable[Path]:
    from rich.progress import track

    return track(pictures, "Predicting", transient=True, disable=not show_progress())


def _with_files(
    pictures: Sequence[Path], known: Namespace, *endings: str
) -> Iterable[tuple[Path, list[Path]]]:
    """Return every picture with the files to write of it, all of which may be written."""
    stems = [picture.stem for picture in pictures]
    if doubled := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ConfigError(
            f"several images are named {', '.join(doubled[:3])}; predict them into different "
            "folders with --out"
        )
    files = [[(known.out or Path()) / f"{stem}{ending}" for ending in endings] for stem in stems]
    for path in (path for row in files for path in row):
        require_free(path, known.overwrite)
    return zip(_track(pictures), files, strict=True)


def _write_maps(predictor: "Predictor", pictures: list[Path], known: Namespace) -> None:
    from depthbal.data.images import write_depth_png
    from depthbal.examples import colour_depth, save_picture

    name, unit = predictor.label.name.replace(" ", "_"), predictor.label.unit
    for picture, (path, coloured) in _with_files(pictures, known, f"_{name}.png", "_colour.png"):
        found = predictor.predict(picture)
        write_depth_png(path, found)
        save_picture(coloured, colour_depth(found))
        print(f"{picture}: {found.min():.2f} to {found.max():.2f} {unit}, {path}, {coloured}")


def _write_labels(predictor: "Predictor", pictures: list[Path], known: Namespace) -> None:
    name = predictor.label.name
    path = known.out or Path(f"{name.replace(' ', '_')}s.csv")
    require_free(path, known.overwrite)
    rows = [["path", name, f"{name}_low", f"{name}_high"]]
    for picture in _track(pictures):
        value, ends = predictor.predict_with_interval(picture)
        rows.append([str(picture), f"{value:.4g}", *(f"{end:.4g}" for end in ends or ())])
        rows[-1] += [""] * (4 - len(rows[-1]))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    unit = f" in {predictor.label.unit}" if predictor.label.unit else ""
    print(f"{len(pictures)} pictures: {path} ({name}{unit}, 68 % interval)")


def _write_parts(predictor: "Predictor", pictures: list[Path], known: Namespace) -> None:
    import numpy as np

    for picture, (path,) in _with_files(pictures, known, ".npz"):
        parts = predictor.outputs(picture)
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **parts)  # type: ignore[arg-type]
        shapes = ", ".join(f"{name} {value.shape}" for name, value in parts.items())
        print(f"{picture}: {path} ({shapes})")
