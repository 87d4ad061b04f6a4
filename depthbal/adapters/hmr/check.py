"""Which of the files that human mesh recovery needs are there, and where the others come from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.adapters.hmr.features import kept_features
from depthbal.adapters.hmr.fits import read_fits
from depthbal.adapters.hmr.head import load_mean_params
from depthbal.adapters.hmr.layout import (
    BODIES,
    CHECKPOINT,
    DATA_SETS,
    JOINT_REGRESSOR,
    MEAN_PARAMS,
    TEST,
    TRAINING,
    DataSet,
    body_file,
)
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.people import People
from depthbal.adapters.hmr.readiness import readiness
from depthbal.adapters.hmr.smpl_files import read_joint_regressor, read_smpl
from depthbal.adapters.hmr.spin_data import read_spin
from depthbal.data.files import missing_files
from depthbal.errors import DataError, DepthbalError

SPIN_HOST = "visiondata.cis.upenn.edu/spin"
DEAD = "reported unreachable since 2025"
ORIGINS = {
    CHECKPOINT: f"{SPIN_HOST}/model_checkpoint.pt ({DEAD}); MMHuman3D's mirror has "
    "spin_official_nofc.pth, the backbone without the head",
    MEAN_PARAMS: f"{SPIN_HOST}/data.tar.gz ({DEAD}), or the links in MMHuman3D's README",
    JOINT_REGRESSOR: f"{SPIN_HOST}/data.tar.gz ({DEAD}), or the links in MMHuman3D's README",
    "NEUTRAL": "smplify.is.tue.mpg.de, after registration; research licence, not to be passed on",
    "MALE": "smpl.is.tue.mpg.de, after registration; only for gendered ground truth (3DPW)",
    "FEMALE": "smpl.is.tue.mpg.de, after registration; only for gendered ground truth (3DPW)",
    "dataset_extras": f"{SPIN_HOST}/dataset_extras.tar.gz ({DEAD}), or SPIN's preprocessing",
    "static_fits": f"{SPIN_HOST}/static_fits.tar.gz ({DEAD})",
    "spin_fits": f"{SPIN_HOST}/spin_fits.tar.gz ({DEAD})",
}
Reader = Callable[[Path], Any]
NO_H36M = "cannot be passed on by anybody; MoSh bodies are not needed, nor is the data set"


@dataclass(frozen=True)
class Entry:
    """One line of the check.

    Args:
        path: Relative to the folder.
        state: "found", "missing", or what is wrong.
        origin: Where it comes from.
    """

    path: str
    state: str
    origin: str


def check_files(root: Path) -> dict[str, list[Entry]]:
    """Return every file that training and evaluation use, by what it is for, read as they do.

    Args:
        root: SPIN's ``data`` folder, with ``images/NAME`` or ``features/NAME.npy`` beside.

    Raises:
        DataError: There is no such folder.

    Example:
        >>> import tempfile
        >>> found = check_files(Path(tempfile.mkdtemp()))
        >>> list(found)[:3], found["coco"][0].state
        (['model', '3dpw', 'h36m'], 'missing')
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; expected SPIN's data folder")
    readers: dict[str, Reader] = {
        CHECKPOINT: lambda path: SpinNetwork(str(path)),
        MEAN_PARAMS: load_mean_params,
        JOINT_REGRESSOR: read_joint_regressor,
    }
    model = [_entry(root, file, ORIGINS[file], read) for file, read in readers.items()]
    for body in BODIES:
        path = body_file(root, body) or root / "smpl" / f"SMPL_{body}.pkl"
        model.append(_entry(root, str(path.relative_to(root)), ORIGINS[body], read_smpl))
    return {"model": model} | {name: list(_of(root, data)) for name, data in DATA_SETS.items()}


def print_check(console: Console, root: Path) -> None:
    """Print the check, and which data sets a training can use under which settings.

    Raises:
        DataError: No training is possible; says what is missing.
    """
    for name, entries in check_files(root).items():
        table = Table(title=name, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for column in ("file", "state", "where it comes from"):
            table.add_column(column, overflow="fold")
        for entry in entries:
            table.add_row(entry.path, entry.state, entry.origin)
        console.print(table)
    found = readiness(root)
    if not found.ways:
        problems = [f"{part}: {problem}" for part, problem in found.problems.items()]
        no_rows = f"there is no training data set such as {TRAINING['coco'].rows}"
        raise DataError(f"no training is possible with {root}: {'; '.join(problems) or no_rows}")
    usable = {name for names, _ in found.ways for name in names}
    lines = [
        f"{part} cannot be used: {problem}"
        for part, problem in found.problems.items()
        if part not in usable and not part.startswith(TEST.name)
    ]
    for names, settings in found.ways:
        given = f" with {' '.join(settings)}" if settings else ""
        lines.append(f"Ready for training{given}: {', '.join(names)}")
    console.print(*lines, sep="\n", highlight=False, soft_wrap=True, markup=False)


def _of(root: Path, data: DataSet) -> Iterator[Entry]:
    """Yield rows, fits, pictures and features of a data set, in this order."""
    people: list[People] = []  # one where the rows can be read

    def read_rows(path: Path) -> str:
        people.append(read_spin(path, data.images(root)))
        poses = ", with poses" if people[0].valid.any() else ""
        return f", {len(people[0])} rows{poses}"

    def read_features(path: Path) -> str:
        kept = kept_features(path, people[0], None) if people else None
        return "" if kept is None else f", {kept.shape[1]} numbers per picture"

    def check_fits(path: Path) -> None:
        if people:
            read_fits(path, len(people[0]))

    yield _entry(root, data.rows, ORIGINS["dataset_extras"], read_rows)
    for fits in (data.static, data.final):
        if fits is not None:
            origin = NO_H36M if data.name == "h36m" else ORIGINS[fits.partition("/")[0]]
            yield _entry(root, fits, origin, check_fits)
    pictures = people[0].files.tolist() if people else []
    there = len(pictures) - len(list(missing_files(Path(), pictures)))
    complete = pictures and there == len(pictures)
    state = "found" if complete else f"{there} of {len(pictures)} pictures"
    folder = data.images(root)
    yield Entry(f"images/{data.name}/", state if folder.is_dir() else "missing", data.site)
    written = "written by the first training from the pictures"
    yield _entry(root, str(data.features(root).relative_to(root)), written, read_features)


def _entry(root: Path, path: str, origin: str, read: Reader) -> Entry:
    """Return the line of a file, after reading it; what the reader returns as text is shown."""
    if not (root / path).is_file():
        return Entry(path, "missing", origin)
    try:
        more = read(root / path)
    except DepthbalError as error:
        return Entry(path, str(error), origin)
    return Entry(path, f"found{more if isinstance(more, str) else ''}", origin)
