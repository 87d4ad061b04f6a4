"""``depthbal predict``: a run applied to pictures and videos."""

import csv
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbal.commands import add_balancing, make_parser
from depthbal.errors import ConfigError, DataError, RunFolderError, first_line
from depthbal.io import replacing, require_free, show_progress

if TYPE_CHECKING:
    from rich.progress import Progress

    from depthbal.predictor import Predictor

Input = tuple[Path, Path]
"""A picture or video, and the path of what is written of it, without ending."""
Work = Callable[[Path, list[Path], "Progress"], None]


def main(arguments: Sequence[str]) -> None:
    """Write what a network says of every picture."""
    parser = make_parser(
        "predict",
        "Networks of depth: NAME_depth.png (16 bit, millimetres, or the step that the file and the "
        "message name; of another label NAME_LABEL.png, thousandths of its unit) and "
        "NAME_colour.png for every picture; of a video a folder NAME_depth of its frames, and "
        "NAME_colour.mp4. Networks of one label: a line each in a csv file, with its 68 % "
        "interval. Networks of several outputs (human meshes): NAME.npz.",
        "runs/rooms-gai photo.jpg holiday/ walk.mp4 --out predictions",
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder or checkpoint")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="pictures, videos, folders of them")
    add("--out", type=Path, help="folder (default: here), or the csv file")
    add("--checkpoint", choices=("last", "best"), default="last")
    add("--device", help="default: the first GPU, else cpu")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--overwrite", action="store_true", help="replace existing files")
    one.add_argument("--skip-existing", action="store_true", help="leave out what has its files")
    add_balancing(parser)
    add("--tta", choices=("flip",), help="average with the prediction of the mirrored picture")
    maps = parser.add_argument_group("networks of maps")
    add = maps.add_argument
    add("--format", choices=("png", "npy", "tiff"), default="png", help="npy, tiff: float32")
    add("--interval", action="store_true", help="the 68 %% interval: NAME_depth_low, _high")
    add("--tiles", type=int, metavar="SIZE", help="large pictures in overlapping tiles of SIZE px")
    add("--ply", action="store_true", help="a coloured point cloud NAME.ply; needs the camera:")
    camera = maps.add_mutually_exclusive_group()
    camera.add_argument("--intrinsics", type=intrinsics, metavar="FX,FY,CX,CY", help="pixels")
    camera.add_argument("--fov", type=float, metavar="DEGREES", help="horizontal field of view")
    known = parser.parse_args(arguments)
    known.ply |= known.intrinsics is not None or known.fov is not None
    if known.ply and not (known.intrinsics or 0 < (known.fov or 0) < 180):
        raise ConfigError(
            "--ply needs the camera: give --intrinsics FX,FY,CX,CY in pixels, or --fov in degrees "
            "above 0 and below 180"
        )

    import torch

    inputs = _found(known.inputs)
    options = known.checkpoint, known.device, known.posthoc, known.balance
    predictor = open_predictor(known.run, *options).set_world(known.tau, known.relative_to)
    shown = _first_output(predictor, inputs)
    labels = isinstance(shown, torch.Tensor)
    write = _write_labels if labels else _write_parts
    unfit = {"interval", "tiles", "ply"} | (set() if labels else {"tta"})
    if shown is None or (labels and shown.ndim > 2):
        write, unfit = _write_maps, set()
    if given := [f"--{name}" for name in sorted(unfit) if getattr(known, name)]:
        raise ConfigError(f"{', '.join(given)}: {known.run} is no network of maps")
    failed = write(predictor, inputs, known)
    if failed:
        head = f"{len(failed)} of {len(inputs)} could not be predicted:\n" * (len(inputs) > 1)
        raise DataError(head + "\n".join(failed))


def intrinsics(text: str) -> tuple[float, float, float, float]:
    """Read FX,FY,CX,CY."""
    fx, fy, cx, cy = map(float, text.split(","))
    return fx, fy, cx, cy


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
            balance_afterwards(run, task, sigma, source)
            unit = task.test_facts["posthoc"].get("noise_unit", task.label.unit)
            print(f"Balanced afterwards with sigma {sigma:g} {unit} ({source})")
        predictor = task.predictor()
        predictor.label = task.label
    if balance is not None:
        chosen = load_balance(balance, predictor.criterion, predictor.label, str(path))
        predictor.posthoc, predictor.label_range = chosen, chosen.label_range
    return predictor.to(place).eval()


def _found(given: Sequence[Path]) -> list[Input]:
    """Return the inputs, those of a folder in the order of their paths, with its inner folders."""
    from depthbal.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    suffixes, found = IMAGE_SUFFIXES + VIDEO_SUFFIXES, []
    for path in given:
        inside = sorted(p for p in path.rglob("[!.]*") if p.suffix.lower() in suffixes)
        inside = [p for p in inside if "/." not in f"/{p.relative_to(path).as_posix()}"]
        if path.is_dir() and not inside:
            raise ConfigError(f"there is no picture in the folder {path}: {', '.join(suffixes)}")
        found += [(p, p.relative_to(path).with_suffix("")) for p in inside]
        found += [] if path.is_dir() else [(path, Path(path.stem))]
    return found


def _first_output(predictor: "Predictor", inputs: list[Input]) -> Any:
    """Return what the network gives for the first picture that can be read; None if none can."""
    import torch

    from depthbal.data.images import is_video, read_video

    for source, _ in inputs:
        with suppress(DataError, RuntimeError), torch.no_grad():  # named when its turn comes
            image: Any = next(read_video(source)) if is_video(source) else source
            return predictor.model(predictor.prepare(image)[0])
    return None


def _each(inputs: list[Input], known: Namespace, endings: list[str], work: Work) -> list[str]:
    """Do the work for every input and its files; return what went wrong, when all others are done.

    What an earlier call wrote into a folder of inputs is no input.
    """
    from rich.progress import Progress

    from depthbal.data.images import is_video

    counts = Counter(stem for _, stem in inputs)  # room.jpg beside room.png keep their endings
    inputs = [(one, stem.with_name(one.name) if counts[stem] > 1 else stem) for one, stem in inputs]
    counts = Counter(stem for _, stem in inputs)
    if doubled := sorted(stem.name for stem in counts if endings and counts[stem] > 1):
        raise ConfigError(
            f"several images are named {', '.join(doubled[:3])}; name the folder that holds them "
            "all, or predict them into different folders with --out"
        )
    rows = []
    for source, stem in inputs:
        files = [(known.out or Path()) / f"{stem}{ending}" for ending in endings]
        if is_video(source):  # folders of frames, and a video of colours
            files = [f.with_suffix(".mp4" if f.match("*_colour.png") else "") for f in files]
        rows.append((source, files))
    ours = {path.resolve() for _, files in rows for path in files}
    rows = [row for row in rows if ours.isdisjoint((row[0].resolve() / "x").parents)]
    if known.skip_existing:
        before = len(rows)
        rows = [row for row in rows if not (row[1] and all(path.exists() for path in row[1]))]
        print(f"{before - len(rows)} of {before} have their files already")
    there = [path for _, files in rows for path in files if path.exists()]
    if there and not (known.skip_existing or known.overwrite):
        raise RunFolderError(
            f"{there[0]} exists; give --skip-existing or --overwrite, or choose another --out"
        )
    failed = []
    with Progress(transient=True, disable=not show_progress()) as bar:
        for source, files in bar.track(rows, description="Predicting"):
            try:
                work(source, files, bar)
            except (DataError, MemoryError, RuntimeError) as error:
                text = first_line(error)
                failed.append(text if str(source) in text else f"{source}: {text}")
    return failed


def _write_maps(predictor: "Predictor", inputs: list[Input], known: Namespace) -> list[str]:
    from depthbal.data import images
    from depthbal.examples import colour_depth, save_picture, save_video

    name, unit = predictor.label.name.replace(" ", "_"), predictor.label.unit
    parts = ("", "_low", "_high") if known.interval else ("",)
    endings = [*(f"_{name}{part}.{known.format}" for part in parts), "_colour.png"]
    endings += [".ply"] * known.ply

    def write(image: images.Image, files: list[Path]) -> tuple[images.Depth, float]:
        """Write all but the colours; return the map, and the units per step."""
        found, ends = predictor.predict_with_interval(image, known.tta == "flip", known.tiles)
        if known.interval and ends is None:
            raise ConfigError(
                f"--interval: {known.run} has no scale of normal noise; balance it afterwards with "
                "--posthoc SIGMA or --balance FILE"
            )
        maps = [found, *(ends or ())][: len(parts)]
        top = max([*(predictor.label_range or ()), *(float(each.max()) for each in maps)])
        for file, each in zip(files, maps, strict=False):
            step = images.write_depth(file, each, top, unit)
        if known.ply:
            camera = known.intrinsics or images.intrinsics_of_fov(known.fov, found.shape)
            images.write_ply(files[-1], found, image, camera)
        return found, step

    def work(source: Path, files: list[Path], bar: "Progress") -> None:
        coloured, said = files[len(parts)], ""
        if not images.is_video(source):
            found, step = write(images.read_image(source), files)
            facts = [(float(found.min()), float(found.max()), step)]
            save_picture(coloured, colour_depth(found, none=math.nan))  # 0 is predicted too
        else:
            rate, count = images.video_facts(source)
            kinds = [ending.rpartition(".")[2] for ending in endings]
            rows, facts = [], []
            frames = bar.track(images.read_video(source), count, description=source.name)
            for number, image in enumerate(frames):
                rows.append([f / f"{number:06d}.{k}" for f, k in zip(files, kinds, strict=True)])
                found, step = write(image, rows[-1])
                facts.append((float(found.min()), float(found.max()), step))
            span = min(fact[0] for fact in facts), max(fact[1] for fact in facts)
            maps = (images.read_depth(row[0]) for row in rows)  # all of them need not fit in memory
            save_video(coloured, (colour_depth(depth, span, math.nan) for depth in maps), rate)
            said = f"{len(facts)} frames, "
        lows, highs, steps = zip(*facts, strict=True)
        said += f"{min(lows):.2f} to {max(highs):.2f} {unit}, {files[0]}"
        said += "" if max(steps) in (1, 0.001) else f" (in steps of {max(steps):g} {unit})"
        print(f"{source}: {said}, {coloured}")

    return _each(inputs, known, endings, work)


def _write_labels(predictor: "Predictor", inputs: list[Input], known: Namespace) -> list[str]:
    name = predictor.label.name
    path = known.out or Path(f"{name.replace(' ', '_')}s.csv")
    require_free(path, known.overwrite)
    rows = [["path", name, f"{name}_low", f"{name}_high"]]

    def work(source: Path, *_: Any) -> None:
        value, ends = predictor.predict_with_interval(source, known.tta == "flip")
        numbers = [f"{number:.6g}" for number in (value, *(ends or ()))]
        rows.append([str(source), *numbers, *[""] * (3 - len(numbers))])

    failed = _each(inputs, known, [], work)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    unit = f" in {predictor.label.unit}" if predictor.label.unit else ""
    print(f"{len(rows) - 1} pictures: {path} ({name}{unit}, 68 % interval)")
    return failed


def _write_parts(predictor: "Predictor", inputs: list[Input], known: Namespace) -> list[str]:
    import numpy as np

    def work(source: Path, files: list[Path], _: Any) -> None:
        parts = predictor.outputs(source)
        with replacing(files[0]) as temporary:
            np.savez(temporary, allow_pickle=False, **parts)  # type: ignore[arg-type]
        shapes = ", ".join(f"{name} {value.shape}" for name, value in parts.items())
        print(f"{source}: {files[0]} ({shapes})")

    return _each(inputs, known, [".npz"], work)
