"""NYUD2-DIR: NYU Depth V2 in the layout of the published imbalanced-regression benchmark."""

import csv
import posixpath
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from depthbal.data.dataset import DepthDataset
from depthbal.data.images import MILLIMETRE, read_npy
from depthbal.data.label_data import Split
from depthbal.data.packed import PackedPairs, RootDataModule
from depthbal.data.pairs import FilePairs, PairSource, missing_files
from depthbal.errors import DataError

BALANCED_MASK = "test_balanced_mask.npy"
SCALE = {"uint8": 10.0 / 255.0, "uint16": MILLIMETRE}  # of the training and the test depth


class NYUD2DataModule(RootDataModule):
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
    """

    benchmark: ClassVar[str | None] = "nyud2_dir"
    kind, defaults = "nyud2", {"train_csv": "nyu2_train.csv", "test_csv": "nyu2_test.csv"}

    def __init__(
        self,
        root: str | Path,
        *,
        train_csv: str = "nyu2_train.csv",
        test_csv: str = "nyu2_test.csv",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.reading = {"train_csv": train_csv, "test_csv": test_csv}

    def file_splits(self) -> list[str]:
        """Return the splits whose lists are there."""
        return [split for split in ("train", "test") if self._list(split).is_file()]

    def files(self, split: str) -> FilePairs:
        """Return the pairs of a list."""
        path = self._list(split)
        return FilePairs(path.parent, read_pairs_csv(path), SCALE)

    def _list(self, split: str) -> Path:
        """Return ROOT/data/LIST, or ROOT/LIST where that is there."""
        inside, beside = (self.root / part / self.reading[f"{split}_csv"] for part in ("data", ""))
        return Path(inside if inside.is_file() or not beside.is_file() else beside)

    def test_source(self) -> PairSource:
        """Return the pairs of the test list, and find the official mask."""
        pairs = self.pairs("test")
        if isinstance(pairs, PackedPairs):
            self.balanced_mask_file = pairs.balanced_mask()
        elif (mask := self._list("test").with_name(BALANCED_MASK)).is_file():
            self.balanced_mask_file = mask
        return pairs

    def dataset(self, split: Split) -> DepthDataset | None:
        """Return the samples of a split, checked, as is the shape of the official mask."""
        data = super().dataset(split)
        if split == "test" and data is not None and (path := self.balanced_mask_file) is not None:
            height, width = data[0]["depth"].shape[1:]
            if (found := read_npy(path).shape) != (len(data), height, width):
                raise DataError(
                    f"{path}: expected a mask of {len(data)} test images of {height} x {width} "
                    f"pixels (the crop_size), got {found}; use the test list and crop_size it was "
                    "made for, or remove it to have one drawn"
                )
        return data


def read_pairs_csv(path: Path) -> list[tuple[str, str]]:
    """Return the rows of a list without header, image path,depth path, relative to its folder.

    Paths may start with ``data/``, which means that folder. Errors count rows as an editor does.
    """
    rows: dict[int, tuple[str, ...]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for entries in (reader := csv.reader(lines)):
                if any(stripped := [entry.strip() for entry in entries]):
                    inside = (posixpath.normpath(entry) for entry in stripped if entry)
                    rows[reader.line_num] = tuple(entry.removeprefix("data/") for entry in inside)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path.absolute()}: not a readable csv file ({error}); give --data.root the NYUD2-DIR "
            "download, or a file that depthbal prepare made of it"
        ) from error
    if not rows:
        raise DataError(f"{path}: the list is empty; expected rows 'image path,depth path'")
    if wrong := [number for number, row in rows.items() if len(row) != 2]:
        raise DataError(f"{path}, row {wrong[0]}: expected 2 columns (image path,depth path)")
    if missing := missing_files(path.parent, chain(*rows.values())):
        numbers = {entry: number for number, row in rows.items() for entry in row}
        first = ", ".join(f"row {numbers[entry]}: {entry}" for entry in missing[:3])
        raise DataError(
            f"{path}: {len(missing)} of {2 * len(rows)} files do not exist in {path.parent} "
            f"({first}{', ...' * (len(missing) > 3)}); complete the download or remove the "
            "rows"
        )
    return [(image, depth) for image, depth in rows.values()]
