"""The files of NYUD2-DIR: where the lists lie, and what their depth means."""

from pathlib import Path
from typing import Any

import numpy as np

from depthbal.data.files import FilePairs
from depthbal.data.images import MILLIMETRE, read_raw_depth, to_metres
from depthbal.data.pairs import Depth
from depthbal.data.pairs_csv import read_pairs_csv
from depthbal.errors import DataError

LEVEL = 10.0 / 255.0  # metres per level of the 8-bit training depth
BALANCED_MASK = "test_balanced_mask.npy"
TRAIN_CSV, TEST_CSV = "nyu2_train.csv", "nyu2_test.csv"


def nyud2_pairs(root: Path, csv_name: str) -> FilePairs:
    """Return the pairs of a list, checked for their files' existence.

    Args:
        root: the folder that contains ``data/``, or that folder itself.
        csv_name: name of the list inside it.

    Raises:
        DataError: the list or a file is missing; names the row.
    """
    data_dir = find_data_dir(root, csv_name)
    pairs = read_pairs_csv(data_dir / csv_name, data_dir)
    return FilePairs(data_dir, pairs, read_nyud2_depth, "nyud2")


def find_data_dir(root: Path, csv_name: str) -> Path:
    """Return the folder that holds the lists: ROOT/data, or ROOT where it is that folder itself.

    Raises:
        DataError: neither holds `csv_name`.
    """
    for data_dir in (root / "data", root):
        if (data_dir / csv_name).is_file():
            return data_dir
    seen = (
        "does not exist" if not root.exists() else f"holds neither data/{csv_name} nor {csv_name}"
    )
    raise DataError(
        f"--data.root {root.absolute()} {seen}; expected the folder that contains data/{csv_name} "
        "(the NYUD2-DIR download), that data folder itself, or a file that tools/prepare_nyud2.py "
        "packed from it"
    )


def read_nyud2_depth(path: Path) -> Depth:
    """Read depth of the benchmark: 8 bit up to 10 m, or 16 bit in millimetres.

    Raises:
        DataError: naming the file, when it is neither.
    """
    raw = read_raw_depth(path)
    return to_metres(raw, nyud2_scale(raw.dtype, str(path)), (0,), str(path))


def nyud2_scale(dtype: np.dtype[Any], name: str) -> float:
    """Return the metres per unit of the benchmark's depth.

    Raises:
        DataError: naming the file, when it has neither 8 nor 16 bit.
    """
    if dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: expected an 8-bit or 16-bit PNG, got {dtype}")
    return LEVEL if dtype == np.uint8 else MILLIMETRE
