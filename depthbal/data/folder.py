"""Own data: images and depth maps in folders."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from depthbal.data.datamodule import DepthDataModule
from depthbal.data.files import FilePairs
from depthbal.data.images import DEPTH_SUFFIXES, IMAGE_SUFFIXES, default_scale, read_depth
from depthbal.data.matching import match_pairs, require_folder
from depthbal.data.packed import PackedPairs, is_packed, open_root, packed_splits
from depthbal.data.pairs import PairSource, PairSubset
from depthbal.data.splits import Split, hold_out
from depthbal.errors import ConfigError

# Steps finer than this share of a bin change no count that matters.
_COARSE = 0.05


class FolderDataModule(DepthDataModule):
    """Read own images and depth maps from folders.

    Either one set, from which the test split is taken by `test_fraction`::

        ROOT/rgb/kitchen/0001.jpg      ROOT/depth/kitchen/0001.png

    or split folders (used where ROOT/train exists; ROOT/val is optional)::

        ROOT/train/rgb/0001.jpg        ROOT/train/depth/0001.png
        ROOT/val/rgb/0001.jpg          ROOT/val/depth/0001.png
        ROOT/test/rgb/0001.jpg         ROOT/test/depth/0001.png

    An image and a depth file belong together when their paths inside ``rgb`` and ``depth`` agree
    apart from the suffix. Other layouts are described by patterns, whose wildcards must then stand
    for the same text: ``rgb: "**/*_colors.png"``, ``depth: "**/*_depth.png"``. Subfolders count as
    scenes: a split never cuts one where there are at least ten, else blocks of consecutive files
    are held out.

    Depth files are PNG or TIFF of 8 or 16 bit with one channel, or ``.npy`` (H, W), of the same
    size as their image.

    `root` may also be one file that ``depthbal prepare`` packed from such a folder; `rgb`,
    `depth`, `scale` and `invalid` are then those it was packed with.

    Args:
        root: the folder with the data, or a packed file.
        rgb: folder or pattern of the images, inside `root` or inside each split's folder.
        depth: folder or pattern of the depth files, likewise.
        scale: metres per unit of the depth files. null: 16-bit files are in millimetres (0.001),
            floating-point ``.npy`` in metres (1.0); 8-bit files and integer ``.npy`` need a value.
        invalid: values in the depth files that mean "no depth"; 0 always does.
        test_fraction: share of one set that becomes the test split, before validation is taken.
        **kwargs: as for `DepthDataModule`.

    Raises:
        ConfigError: a scale or fraction outside its range.
        DataError: in `setup`; names the folder or file.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        rgb: str = "rgb",
        depth: str = "depth",
        scale: float | None = None,
        invalid: Sequence[float] = (0.0,),
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if scale is not None and not scale > 0:
            raise ConfigError(f"expected a positive scale or null, got {scale}")
        if not 0 < test_fraction < 1:
            raise ConfigError(f"expected test_fraction between 0 and 1, got {test_fraction}")
        self.root = Path(root).expanduser()
        self.rgb = rgb
        self.depth = depth
        self.scale = scale
        self.invalid = tuple(invalid)
        self.test_fraction = test_fraction
        self._whole: tuple[FilePairs | PackedPairs, Split] | None = None

    def check_root(self) -> None:
        """Check that the folders of images and depth, or the packed file, are there."""
        splits = self._splits()
        if not is_packed(self.root):
            for split in ("train", "test") if "train" in splits else ("",):
                for option, where in (("rgb", self.rgb), ("depth", self.depth)):
                    require_folder(self.root / split, option, where)

    def train_source(self) -> PairSource:
        """Return the training pairs, validation not yet taken out."""
        if "train" in self._splits():
            files = self._source("train")
            self.quantum = self._quantum(files)
            return files
        files, split = self._split_whole()
        self.quantum = self._quantum(files)
        return PairSubset(files, split.kept)

    def val_source(self) -> PairSource | None:
        """Return the pairs of ROOT/val, or None where it does not exist."""
        return self._source("val") if {"train", "val"} <= set(self._splits()) else None

    def test_source(self) -> PairSource:
        """Return the pairs of ROOT/test, or the share of one set that was held out for testing."""
        if "train" in self._splits():
            return self._source("test")
        whole, split = self._split_whole()
        return PairSubset(whole, split.held_out)

    def source_name(self) -> str:
        """Return the root folder or the packed file."""
        return str(self.root.absolute())

    def _splits(self) -> list[str]:
        """Return the splits that are folders of their own, or were when they were packed."""
        return packed_splits(self.root) if is_packed(self.root) else split_folders(self.root)

    def _split_whole(self) -> tuple[FilePairs | PackedPairs, Split]:
        if self._whole is None:
            whole = self._source("whole")
            groups = [whole.group(index) for index in range(len(whole))]
            self._whole = whole, hold_out(groups, self.test_fraction, self.seed)
        return self._whole

    def _source(self, split: str) -> FilePairs | PackedPairs:
        settings = {
            "rgb": (self.rgb, "rgb"),
            "depth": (self.depth, "depth"),
            "scale": (self.scale, None),
            "invalid": (list(self.invalid), [0.0]),
        }
        if is_packed(self.root):
            short_side = self.count_transform.short_side
            return open_root(self.root, split, ("folder",), short_side, settings)
        return folder_pairs(self.root, split, self.rgb, self.depth, self.scale, self.invalid)

    def _quantum(self, source: FilePairs | PackedPairs) -> float | None:
        """Return the depth of one level where it is coarse enough to show in the histogram."""
        dtype = source.stored_dtype()
        if not np.issubdtype(dtype, np.integer):
            return None
        if isinstance(source, PackedPairs):
            level = source.scale
        else:
            level = self.scale or default_scale(dtype, source.name(0))
        return level if level > _COARSE * self.bin_width else None


def split_folders(root: Path) -> list[str]:
    """Return the splits that are folders of their own; none where ROOT/train does not exist."""
    if not (root / "train").is_dir():
        return []
    return [split for split in ("train", "val", "test") if (root / split).is_dir()]


def folder_pairs(
    root: Path, split: str, rgb: str, depth: str, scale: float | None, invalid: Sequence[float]
) -> FilePairs:
    """Return the pairs of a split's folder, or with "whole" of the root; see `FolderDataModule`."""
    folder = root if split == "whole" else root / split
    pairs, single = match_pairs(folder, rgb, depth, IMAGE_SUFFIXES, DEPTH_SUFFIXES)
    if single:
        rank_zero_warn(
            f"{folder}: {len(single)} files have no partner and are left out "
            f"(the first: {single[0]}); {len(pairs)} pairs remain"
        )
    reader = partial(read_depth, scale=scale, invalid=tuple(invalid))
    return FilePairs(folder, pairs, reader, f"scale={scale} invalid={tuple(invalid)}")
