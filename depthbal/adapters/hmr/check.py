"""Which of the files that human mesh recovery needs are there, and where the others come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

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
from depthbal.adapters.hmr.spin_data import read_spin
from depthbal.data.files import missing_files
from depthbal.errors import DataError

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

    @property
    def found(self) -> bool:
        """Whether it can be used."""
        return self.state.startswith("found")


def check_files(root: Path) -> dict[str, list[Entry]]:
    """Return every file that training and evaluation use, by what it is for.

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
    model = [_plain(root, f, ORIGINS[f]) for f in (CHECKPOINT, MEAN_PARAMS, JOINT_REGRESSOR)]
    for body in BODIES:
        path = body_file(root, body)
        shown = f"smpl/SMPL_{body}.pkl" if path is None else str(path.relative_to(root))
        model.append(Entry(shown, "missing" if path is None else "found", ORIGINS[body]))
    return {"model": model} | {name: list(_of(root, data)) for name, data in DATA_SETS.items()}


def trainable(groups: dict[str, list[Entry]]) -> list[str]:
    """Return the training data sets of which rows, bodies and pictures or features are there."""
    return [name for name in TRAINING if _complete(groups[name])]


def print_check(console: Console, root: Path) -> None:
    """Print the check, and which data sets a training can use.

    Raises:
        DataError: No training is possible; says what is missing.
    """
    groups = check_files(root)
    for name, entries in groups.items():
        table = Table(title=name, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for column in ("file", "state", "where it comes from"):
            table.add_column(column, overflow="fold")
        for entry in entries:
            table.add_row(entry.path, entry.state, entry.origin)
        console.print(table)
    ready, needed = trainable(groups), _lacking(groups)
    console.print(f"Ready for training: {', '.join(ready) or 'no data set'}.", highlight=False)
    if needed:
        raise DataError(f"no training is possible with {root}: {'; '.join(needed)}")


def _lacking(groups: dict[str, list[Entry]]) -> list[str]:
    needed = [
        f"{entry.path} is {entry.state}"
        for entry in groups["model"]
        if not entry.found and not any(word in entry.path for word in ("MALE", CHECKPOINT))
    ]
    if not _complete(groups[TEST.name]):
        needed.append(f"the test set {TEST.name} is not complete")
    if not trainable(groups):
        needed.append("no training data set is complete")
    return needed


def _complete(entries: list[Entry]) -> bool:
    rows, *fits, images, features = entries
    labelled = "poses" in rows.state or any(entry.found for entry in fits)
    return rows.found and labelled and (images.state == "found" or features.found)


def _of(root: Path, data: DataSet) -> Iterator[Entry]:
    """Yield rows, fits, pictures and features of a data set, in this order."""
    path, folder = root / data.rows, data.images(root)
    pictures: list[str] = []
    state = "missing"
    if path.is_file():
        try:
            people = read_spin(path, folder)
            pictures = people.files.tolist()
            poses = ", with poses" if people.valid.any() else ""
            state = f"found, {len(people)} rows{poses}"
        except DataError as error:
            state = str(error)
    yield Entry(data.rows, state, ORIGINS["dataset_extras"])
    for fits in (data.static, data.final):
        if fits is not None:
            origin = NO_H36M if data.name == "h36m" else ORIGINS[fits.partition("/")[0]]
            yield _plain(root, fits, origin)
    there = len(pictures) - len(list(missing_files(Path(), pictures)))
    complete = pictures and there == len(pictures)
    state = "found" if complete else f"{there} of {len(pictures)} pictures"
    yield Entry(f"images/{data.name}/", state if folder.is_dir() else "missing", data.site)
    features = data.features(root)
    yield _plain(
        root, str(features.relative_to(root)), "written by the first training from the pictures"
    )


def _plain(root: Path, path: str, origin: str) -> Entry:
    return Entry(path, "found" if (root / path).is_file() else "missing", origin)
