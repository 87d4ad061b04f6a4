"""NYUD2-DIR: NYU Depth V2 in the layout of the published imbalanced-regression benchmark."""

from pathlib import Path
from typing import Any, ClassVar

from depthbal.data.dataset import DepthDataset
from depthbal.data.images import MILLIMETRE, read_array
from depthbal.data.label_data import Split
from depthbal.data.packed import PackedPairs, RootDataModule
from depthbal.data.pairs import FilePairs, PairSource, read_list
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
        crop_size: (height, width) of the centre crop; null keeps everything.
        depth_size: (height, width) of the training depth, or its share of the image's sides.
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
        crop_size: tuple[int, int] | None = (228, 304),
        depth_size: tuple[int, int] | float | None = (114, 152),
        **kwargs: Any,
    ) -> None:
        super().__init__(root, crop_size=crop_size, depth_size=depth_size, **kwargs)
        self.reading = {"train_csv": train_csv, "test_csv": test_csv}

    def file_splits(self) -> list[str]:
        """Return the splits whose lists are there."""
        return [split for split in ("train", "test") if self._list(split).is_file()]

    def files(self, split: str) -> FilePairs:
        """Return the pairs of a list."""
        if not (path := self._list(split)).is_file():
            raise DataError(
                f"there is no {path.absolute()}; give --data.root the NYUD2-DIR download, or a "
                "file that depthbal prepare made of it"
            )
        return FilePairs(path.parent, read_list(path, path.parent, "data/"), SCALE)

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
            if (found := read_array(path).shape) != (len(data), height, width):
                raise DataError(
                    f"{path}: expected a mask of {len(data)} test images of {height} x {width} "
                    f"pixels (the crop_size), got {found}; use the test list and crop_size it was "
                    "made for, or remove it to have one drawn"
                )
        return data
