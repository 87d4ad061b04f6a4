"""Own data: images and depth maps in folders, paired by their names."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from depthbal.data.images import DEPTH_SUFFIXES, IMAGE_SUFFIXES
from depthbal.data.packed import RootDataModule
from depthbal.data.pairs import FilePairs, PairSource, PairSubset
from depthbal.data.splits import Split, hold_out
from depthbal.errors import DataError

_WILDCARDS = {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}


class FolderDataModule(RootDataModule):
    """Read own images and depth maps from folders.

    Either one set, from which the test split is taken by `test_fraction`::

        ROOT/rgb/kitchen/0001.jpg      ROOT/depth/kitchen/0001.png

    or split folders (used where ROOT/train or ROOT/test exists; ROOT/val is optional, and without
    ROOT/train the images can be evaluated on but bins have no shots)::

        ROOT/train/rgb/0001.jpg        ROOT/train/depth/0001.png
        ROOT/val/rgb/0001.jpg          ROOT/val/depth/0001.png
        ROOT/test/rgb/0001.jpg         ROOT/test/depth/0001.png

    An image and a depth file belong together when their paths inside ``rgb`` and ``depth`` agree
    apart from the suffix. Other layouts are described by patterns, whose wildcards must then stand
    for the same text: ``rgb: "**/*_colors.png"``, ``depth: "**/*_depth.png"``. Subfolders count as
    scenes: a split never cuts one where there are at least ten, else blocks of consecutive files
    are held out.

    Depth files are PNG or TIFF with one channel, PFM, ``.npy`` or ``.npz`` (H, W), of the same
    size as their image. `root` may also be one file that ``depthbal prepare`` packed; `rgb`,
    `depth`, `scale` and `invalid` are then those it was packed with.

    Args:
        root: the folder with the data, or a packed file.
        rgb: folder or pattern of the images, inside `root` or inside each split's folder.
        depth: folder or pattern of the depth files, likewise.
        scale: metres per unit of the depth files. null: 16-bit files are in millimetres (0.001),
            floating-point ``.npy`` in metres (1.0); 8-bit files and integer ``.npy`` need a value.
        invalid: values in the depth files that mean "no depth"; 0 always does.
        test_fraction: share of one set that becomes the test split, before validation is taken; 1
            for a set to evaluate on.
        **kwargs: as for `DepthDataModule`.
    """

    kind, defaults = "folder", {"rgb": "rgb", "depth": "depth", "scale": None, "invalid": [0.0]}

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
        super().__init__(root, **kwargs)
        self.reading = {"rgb": rgb, "depth": depth, "scale": scale, "invalid": list(invalid)}
        self.test_fraction = test_fraction

    def file_splits(self) -> list[str]:
        """Return the splits that are folders of their own, where ROOT/train or ROOT/test is one."""
        folders = [split for split in ("train", "val", "test") if (self.root / split).is_dir()]
        return folders if {"train", "test"} & set(folders) else ["whole"]

    def trains(self) -> bool:
        """Whether there are training pairs."""
        splits = self.splits()
        return "train" in splits or ("whole" in splits and self.test_fraction < 1)

    def check_root(self) -> None:
        """Check that all files are there, without reading them."""
        if self.trains():
            self.train_source()
        self.test_source()

    def files(self, split: str) -> FilePairs:
        """Return the pairs of a split's folder, or with "whole" of the root."""
        folder = self.root if split == "whole" else self.root / split
        rgb, depth, scale, invalid = self.reading.values()
        images = keyed_files(folder, "rgb", rgb, IMAGE_SUFFIXES)
        depths = keyed_files(folder, "depth", depth, DEPTH_SUFFIXES)
        pairs = [(images[key], depths[key]) for key in sorted(images.keys() & depths.keys())]
        if not pairs:
            raise DataError(
                f"{folder}: {len(images)} images in {rgb!r} and {len(depths)} depth files in "
                f"{depth!r}, but no name in common (for example {min(images.values())} and "
                f"{min(depths.values())}); give both the same stem, or patterns such as "
                "--data.rgb '*_colors.png' --data.depth '*_depth.png'"
            )
        if single := sorted(images.keys() ^ depths.keys()):
            rank_zero_warn(
                f"{folder}: {len(single)} files have no partner and are left out "
                f"(the first: {(images | depths)[single[0]]}); {len(pairs)} pairs remain"
            )
        return FilePairs(folder, pairs, scale, invalid)

    def pairs(self, split: str) -> PairSource:
        """Return the pairs of a split's folder, or its share of the one set."""
        if "whole" not in self.splits():
            return super().pairs(split)
        whole, divided = self._divided
        return PairSubset(whole, divided.kept if split == "train" else divided.held_out)

    @cached_property
    def _divided(self) -> tuple[PairSource, Split]:
        """The one set, and what of it is held out for testing."""
        whole = super().pairs("whole")
        groups = [whole.group(index) for index in range(len(whole))]
        return whole, hold_out(groups, self.test_fraction, self.seed)


def keyed_files(root: Path, option: str, where: str, suffixes: Sequence[str]) -> dict[str, str]:
    """Return the files of a folder or pattern inside `root` by what distinguishes them.

    In a folder and its subfolders that is the path inside it without suffix; with patterns (``*``,
    ``?``, ``**/``) what the wildcards stand for.
    """
    pattern = _regex(where.strip("/"), suffixes)
    files: dict[str, str] = {}
    for folder, folders, names in os.walk(_start(root, option, where), followlinks=True):
        folders.sort()
        inside = Path(folder).relative_to(root)
        for name in sorted(names):
            path = (inside / name).as_posix()
            match = pattern.fullmatch(path)
            if match is None or name.startswith("."):
                continue
            key = "\0".join(part or "" for part in match.groups())
            if key in files:
                raise DataError(f"{root}: {files[key]} and {path} have the same stem; remove one")
            files[key] = path
    if not files:
        raise DataError(
            f"{root}: no file matches {where!r} (endings: {', '.join(suffixes)}); give "
            f"--data.{option} another folder or pattern"
        )
    return files


def _start(root: Path, option: str, where: str) -> Path:
    """Return the folder that is searched: the one given, or those before the first wildcard."""
    first = re.search(r"[*?]", where)
    start = root / (where[: first.start()].rpartition("/")[0] if first else where).strip("/")
    if not start.is_dir():
        raise DataError(
            f"{start.absolute()} is not a folder, and --data.{option} is {where!r}; give a folder "
            f"in --data.root, or a pattern such as '**/*_{option}.png'"
        )
    return start


def _regex(where: str, suffixes: Sequence[str]) -> re.Pattern[str]:
    """Translate so that every wildcard is a group: what the groups match is the key."""
    if not set(where) & {"*", "?"}:
        endings = "|".join(re.escape(suffix) for suffix in suffixes)
        return re.compile(rf"{re.escape(where)}/(.+)(?i:{endings})")
    parts = re.split(r"(\*\*/|\*|\?)", where)
    text = "".join(_WILDCARDS.get(part, re.escape(part)) for part in parts)
    # a pattern that ends in "*" leaves the suffix open, and it must not be part of the key
    return re.compile(text + r"(?:\.[^./]+)" * where.endswith("*"))
