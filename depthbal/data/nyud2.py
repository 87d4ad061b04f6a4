"""NYUD2-DIR: NYU Depth V2 in the layout of the published imbalanced-regression benchmark."""

from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np

from depthbal.data.datamodule import DepthDataModule
from depthbal.data.images import read_raw_depth
from depthbal.data.nyud2_files import (
    BALANCED_MASK,
    LEVEL,
    TEST_CSV,
    TRAIN_CSV,
    find_data_dir,
    nyud2_pairs,
)
from depthbal.data.packed.format import is_packed_root
from depthbal.data.packed.mask import extract_mask
from depthbal.data.packed.pairs import PackedPairs
from depthbal.data.packed.root import open_root, splits_in
from depthbal.data.pairs import PairSource
from depthbal.errors import DataError


class NYUD2DataModule(DepthDataModule):
    """Read NYUD2-DIR as it was published.

    The layout, where ROOT is given as `root` (ROOT/data works as well)::

        ROOT/data/nyu2_train.csv          data/nyu2_train/SCENE/1.jpg,data/nyu2_train/SCENE/1.png
        ROOT/data/nyu2_test.csv           data/nyu2_test/0_colors.png,data/nyu2_test/0_depth.png
        ROOT/data/test_balanced_mask.npy  optional: the official balanced test pixels

    Depth of 8 bit (training) is ``value / 255 * 10`` metres, of 16 bit (test) millimetres; 0 is no
    depth. Validation is held out by scene folder.

    `root` may also be one file that ``tools/prepare_nyud2.py`` packed from such folders, or from
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
        if is_packed_root(self.root):
            splits_in(self.root)
            return
        for name in (self.train_csv, self.test_csv):
            find_data_dir(self.root, name)

    def train_source(self) -> PairSource:
        """Return the pairs of the training list."""
        if is_packed_root(self.root):
            packed = self._packed("train")
            self.quantum = LEVEL if packed.dtype == np.uint8 else None
            return packed
        source = nyud2_pairs(self.root, self.train_csv)
        first = source.root / source.pairs[0][1]
        self.quantum = LEVEL if read_raw_depth(first).dtype == np.uint8 else None
        return source

    def test_source(self) -> PairSource:
        """Return the pairs of the test list."""
        if is_packed_root(self.root):
            packed = self._packed("test")
            self.balanced_mask_file = extract_mask(packed)
            return packed
        source = nyud2_pairs(self.root, self.test_csv)
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

    def _packed(self, split: str) -> PackedPairs:
        given = {"train_csv": (self.train_csv, TRAIN_CSV), "test_csv": (self.test_csv, TEST_CSV)}
        short_side = self.count_transform.short_side
        return open_root(self.root, split, ("nyud2", "labelled_mat"), short_side, given)


def check_mask(path: Path, shape: tuple[int, int, int]) -> None:
    """Check, from its header, that a balanced mask has the shape (images, height, width).

    Raises:
        DataError: naming the file, what was expected and what came.
    """
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
