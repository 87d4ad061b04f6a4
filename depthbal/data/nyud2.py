"""NYUD2-DIR: NYU Depth V2 in the layout of the published imbalanced-regression benchmark."""

import csv
import posixpath
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np

from depthbal.data.datamodule import DepthDataModule
from depthbal.data.files import FilePairs, missing_files
from depthbal.data.images import MILLIMETRE, read_raw_depth, to_metres
from depthbal.data.packed import PackedPairs, is_packed, open_root, packed_splits
from depthbal.data.pairs import Depth, PairSource
from depthbal.errors import DataError

LEVEL = 10.0 / 255.0  # metres per level of the 8-bit training depth
BALANCED_MASK = "test_balanced_mask.npy"
TRAIN_CSV, TEST_CSV = "nyu2_train.csv", "nyu2_test.csv"
_LISTED = 3  # missing files that a message names


class NYUD2DataModule(DepthDataModule):
    """Read NYUD2-DIR as it was published.

    The layout, where ROOT is given as `root` (ROOT/data works as well)::

        ROOT/data/nyu2_train.csv          data/nyu2_train/SCENE/1.jpg,data/nyu2_train/SCENE/1.png
        ROOT/data/nyu2_test.csv           data/nyu2_test/0_colors.png,data/nyu2_test/0_depth.png
        ROOT/data/test_balanced_mask.npy  optional: the official balanced test pixels

    Depth of 8 bit (training) is ``value / 255 * 10`` metres, of 16 bit (test) millimetres; 0 is no
    depth. Validation is held out by scene folder.

    `root` may also be one file that ``depthbal prepare`` packed from such folders, or from
    the original ``nyu_depth_v2_labeled.mat``: it gives the same samples, and faster.

    Args:
        root: the folder that contains ``data/``, that folder itself, or a packed file.
        train_csv: name of the training list inside ``data/``, for example a subset's; of a packed
            file, the one it was packed with.
        test_csv: name of the test list inside ``data/``, likewise.
        **kwargs: as for `DepthDataModule`.

    Raises:
        DataError: in `setup`; names the file, or the list's row and path.
    """

    benchmark: ClassVar[str | None] = "nyud2_dir"

    def __init__(
        self,
        root: str | Path,
        *,
        train_csv: str = TRAIN_CSV,
        test_csv: str = TEST_CSV,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self.train_csv = train_csv
        self.test_csv = test_csv

    def check_root(self) -> None:
        """Check that both lists, or the packed file, are there."""
        if is_packed(self.root):
            packed_splits(self.root)
            return
        for name in (self.train_csv, self.test_csv):
            find_data_dir(self.root, name)

    def train_source(self) -> PairSource:
        """Return the pairs of the training list."""
        source = self._source("train", self.train_csv)
        self.quantum = LEVEL if source.stored_dtype() == np.uint8 else None
        return source

    def test_source(self) -> PairSource:
        """Return the pairs of the test list."""
        source = self._source("test", self.test_csv)
        if isinstance(source, PackedPairs):
            self.balanced_mask_file = source.balanced_mask()
        else:
            mask = source.root / BALANCED_MASK
            self.balanced_mask_file = mask if mask.is_file() else None
        return source

    def setup(self, stage: str | None = None) -> None:
        """Build and check the splits, and the official mask's shape where the user has it.

        Raises:
            DataError: see `DepthDataModule.setup`; or the mask belongs to another test set or crop.
        """
        super().setup(stage)
        if self.balanced_mask_file is not None and self.test_set is not None:
            height, width = self.test_set[0]["depth"].shape[1:]
            check_mask(self.balanced_mask_file, (len(self.test_set), height, width))

    def source_name(self) -> str:
        """Return the root folder or the packed file."""
        return str(self.root.absolute())

    def _source(self, split: str, csv_name: str) -> FilePairs | PackedPairs:
        if not is_packed(self.root):
            return nyud2_pairs(self.root, csv_name)
        given = {"train_csv": (self.train_csv, TRAIN_CSV), "test_csv": (self.test_csv, TEST_CSV)}
        short_side = self.count_transform.short_side
        return open_root(self.root, split, ("nyud2", "labelled_mat"), short_side, given)


def check_mask(path: Path, shape: tuple[int, int, int]) -> None:
    """Check, from its header, that a balanced mask has the shape (images, height, width)."""
    try:
        given = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(
            f"{path}: not a readable npy file of a balanced mask ({error}); fetch it again, or "
            "remove it to have a mask drawn"
        ) from error
    if not isinstance(given, np.ndarray) or given.shape != shape:
        raise DataError(
            f"{path}: expected a mask of {shape[0]} test images of {shape[1]} x {shape[2]} pixels "
            f"(the crop_size), got shape {getattr(given, 'shape', 'of an archive')}; use the test "
            "list and crop_size it was made for, or remove the file to have a mask drawn"
        )


def find_data_dir(root: Path, csv_name: str) -> Path:
    """Return the folder that holds the lists: ROOT/data, or ROOT where it is that folder itself."""
    for data_dir in (root / "data", root):
        if (data_dir / csv_name).is_file():
            return data_dir
    seen = f"holds neither data/{csv_name} nor {csv_name}" if root.exists() else "does not exist"
    raise DataError(
        f"--data.root {root.absolute()} {seen}; expected the folder that contains data/{csv_name} "
        "(the NYUD2-DIR download), that data folder itself, or a file that depthbal prepare "
        "packed from it"
    )


def nyud2_pairs(root: Path, csv_name: str) -> FilePairs:
    """Return the pairs of a list inside ROOT/data or ROOT, checked for their files' existence."""
    data_dir = find_data_dir(root, csv_name)
    pairs = read_pairs_csv(data_dir / csv_name, data_dir)
    return FilePairs(data_dir, pairs, read_nyud2_depth, "nyud2")


def read_nyud2_depth(path: Path) -> Depth:
    """Read depth of the benchmark: 8 bit up to 10 m, or 16 bit in millimetres."""
    raw = read_raw_depth(path)
    return to_metres(raw, nyud2_scale(raw.dtype, str(path)), (0,), str(path))


def nyud2_scale(dtype: np.dtype[Any], name: str) -> float:
    """Return the metres per unit of the benchmark's depth."""
    if dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: expected an 8-bit or 16-bit PNG, got {dtype}")
    return LEVEL if dtype == np.uint8 else MILLIMETRE


def read_pairs_csv(path: Path, data_dir: Path) -> list[tuple[str, str]]:
    """Return (image path, depth path) of every row of a list, relative to the data folder.

    Args:
        path: the csv file, without header; its paths start with ``data/``, which means `data_dir`.
        data_dir: the folder that the rest of every path is relative to.

    Raises:
        DataError: naming row and path: a missing, empty or undecodable list, a row without exactly
            two columns, a path that leaves `data_dir`, or files that do not exist.
    """
    pairs: list[tuple[str, str]] = []
    numbers = []  # row numbers as an editor shows them, blank lines counted
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for row in (reader := csv.reader(lines)):
                where, entries = f"{path}, row {reader.line_num}", [entry.strip() for entry in row]
                if not any(entries):
                    continue
                if len(entries) != 2 or not all(entries):
                    raise DataError(
                        f"{where}: expected 2 columns (image path,depth path), got "
                        f"{len(row)}: {','.join(row)!r}"
                    )
                pairs.append((_inside(entries[0], where), _inside(entries[1], where)))
                numbers.append(reader.line_num)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a csv text file ({error})") from error
    if not pairs:
        raise DataError(f"{path}: the list is empty; expected rows 'image path,depth path'")
    missing = list(missing_files(data_dir, (entry for pair in pairs for entry in pair)))
    if missing:
        first = [f"row {numbers[at // 2]}: {entry}" for at, entry in missing[:_LISTED]]
        raise DataError(
            f"{path}: {len(missing)} of {2 * len(pairs)} files do not exist in {data_dir} "
            f"({', '.join(first)}{', ...' * (len(missing) > _LISTED)}); complete the download or "
            "remove the rows"
        )
    return pairs


def _inside(entry: str, where: str) -> str:
    """Return the path relative to the data folder; refuse one that leads out of it."""
    relative = posixpath.normpath(entry)
    first, _, rest = relative.partition("/")
    if first == "data" and rest:
        relative = rest
    if relative.startswith(("/", "../")) or relative in (".", ".."):
        raise DataError(
            f"{where}: {entry!r} leaves the data folder; expected a path like "
            "data/nyu2_train/SCENE_out/1.jpg"
        )
    return relative
