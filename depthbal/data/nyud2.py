"""NYUD2-DIR: NYU Depth V2 in the layout of the published imbalanced-regression benchmark."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from depthbal.data.datamodule import DepthDataModule
from depthbal.data.files import FilePairs
from depthbal.data.images import MILLIMETRE, read_raw_depth, to_metres
from depthbal.data.pairs import Depth, PairSource
from depthbal.data.pairs_csv import read_pairs_csv
from depthbal.errors import DataError

LEVEL = 10.0 / 255.0  # metres per level of the 8-bit training depth
BALANCED_MASK = "test_balanced_mask.npy"


class NYUD2DataModule(DepthDataModule):
    """Read NYUD2-DIR as it was published.

    The layout, where ROOT is given as `root` (ROOT/data works as well)::

        ROOT/data/nyu2_train.csv          data/nyu2_train/SCENE/1.jpg,data/nyu2_train/SCENE/1.png
        ROOT/data/nyu2_test.csv           data/nyu2_test/0_colors.png,data/nyu2_test/0_depth.png
        ROOT/data/test_balanced_mask.npy  optional: the official balanced test pixels

    Depth of 8 bit (training) is ``value / 255 * 10`` metres, of 16 bit (test) millimetres; 0 is no
    depth. Validation is held out by scene folder.

    Args:
        root: the folder that contains ``data/``, or that folder itself.
        train_csv: name of the training list inside ``data/``, for example a subset's.
        test_csv: name of the test list inside ``data/``.
        **kwargs: as for `DepthDataModule`.

    Raises:
        DataError: in `setup`; names the file, or the list's row and path.
    """

    benchmark: ClassVar[str | None] = "nyud2_dir"

    def __init__(
        self,
        root: str | Path,
        *,
        train_csv: str = "nyu2_train.csv",
        test_csv: str = "nyu2_test.csv",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self.train_csv = train_csv
        self.test_csv = test_csv

    def train_source(self) -> PairSource:
        """Return the pairs of the training list."""
        source = self._source(self.train_csv)
        first = source.root / source.pairs[0][1]
        self.quantum = LEVEL if read_raw_depth(first).dtype == np.uint8 else None
        return source

    def test_source(self) -> PairSource:
        """Return the pairs of the test list."""
        source = self._source(self.test_csv)
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
        """Return the root folder."""
        return str(self.root.absolute())

    def _source(self, name: str) -> FilePairs:
        data_dir = find_data_dir(self.root, name)
        return FilePairs(
            data_dir, read_pairs_csv(data_dir / name, data_dir), read_nyud2_depth, "nyud2"
        )


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
        f"root {root.absolute()} {seen}; expected the folder that contains data/{csv_name} "
        "(the NYUD2-DIR download), or that data folder itself"
    )


def check_mask(path: Path, shape: tuple[int, int, int]) -> None:
    """Check, from its header, that a balanced mask has the shape (images, height, width).

    Raises:
        DataError: naming the file, what was expected and what came.
    """
    try:
        given = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
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


def read_nyud2_depth(path: Path) -> Depth:
    """Read depth of the benchmark: 8 bit up to 10 m, or 16 bit in millimetres.

    Raises:
        DataError: naming the file, when it is neither.
    """
    raw = read_raw_depth(path)
    if raw.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: expected an 8-bit or 16-bit PNG, got {raw.dtype}")
    scale = LEVEL if raw.dtype == np.uint8 else MILLIMETRE
    return to_metres(raw, scale, (0,), str(path))
