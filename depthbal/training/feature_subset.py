"""The training images of a csv list, for a pass that need not see all of them."""

import csv
import logging
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from depthbal.data import DepthDataModule
from depthbal.data.dataset import DepthDataset
from depthbal.data.loader import LateLoader, ShardSampler, single_threaded
from depthbal.data.pairs import PairSubset
from depthbal.errors import ConfigError, DataError

log = logging.getLogger(__name__)


def subset_loader(datamodule: Any, name: str) -> "DataLoader[Any]":
    """Return a loader over the training images of a list, in its split's order, not augmented.

    The images are looked up by their names, so that packed data serve as well as folders, and
    those held out for validation stay out.

    Args:
        datamodule: A depth data module whose training split is built.
        name: csv file of ``data/IMAGE,data/DEPTH`` rows, or its name in the data folder.

    Raises:
        ConfigError: The data are not depth.
        DataError: There is no such list, or none of its rows is a training image.
    """
    if not isinstance(datamodule, DepthDataModule) or datamodule.train_set is None:
        raise ConfigError(
            f"subset is a list of depth images, but the data come from "
            f"{type(datamodule).__name__}; leave subset out to go over the whole training set"
        )
    path = _find(datamodule, name)
    wanted = _names(path)
    train = datamodule.train_set.source
    chosen = [index for index in range(len(train)) if train.name(index) in wanted]
    if not chosen:
        raise DataError(
            f"{path}: none of its {len(wanted)} rows is an image of the training split, such as "
            f"{train.name(0)!r}; give a list that was drawn from the training list"
        )
    if len(chosen) < len(wanted):
        log.info(
            "Feature smoothing: %d of the %d images of %s are in the training split",
            len(chosen),
            len(wanted),
            path,
        )
    source = PairSubset(train, chosen)
    dataset = DepthDataset(source, datamodule.count_transform, datamodule.seed)
    return LateLoader(
        dataset,
        batch_size=datamodule.batch_size,
        sampler=ShardSampler(dataset),
        num_workers=datamodule.num_workers,
        worker_init_fn=single_threaded,
    )


def _find(datamodule: DepthDataModule, name: str) -> Path:
    """Return the list's path: as given, or beside the training list, or beside packed data."""
    root = Path(getattr(datamodule, "root", "."))
    places = [Path(name), root / "data" / name, root / name, root.parent / name]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"there is no list {name} for feature smoothing in {root / 'data'}, {root} or here; fetch "
        "it with the benchmark, or set subset to null to go over the whole training set"
    )


def _names(path: Path) -> set[str]:
    """Return the pairs of a list as the training split names them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = [[entry.strip() for entry in row] for row in csv.reader(lines) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv list ({error})") from error
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise DataError(f"{path}: expected rows image path,depth path, got {','.join(wrong)!r}")
    return {" with ".join(entry.removeprefix("data/") for entry in row) for row in rows}
