"""Own data: images and depth maps in folders, paired by their names."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning.utilities import rank_zero_warn

from depthbal.data.images import DEPTH_SUFFIXES, IMAGE_SUFFIXES, as_scale
from depthbal.data.packed import RootDataModule
from depthbal.data.pairs import FilePairs, PairSource, PairSubset, natural, normal, read_list
from depthbal.data.splits import Division
from depthbal.errors import DataError

_SPLITS = {"train": "training", "val": "validation", "test": "testing"}
_WILDCARDS = {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}


class FolderDataModule(RootDataModule):
    """Read own images and depth maps from folders.

    Either one set, from which the test split is taken by `test_fraction`::

        ROOT/rgb/kitchen/0001.jpg      ROOT/depth/kitchen/0001.png

    or split folders (also training, validation, testing), such as::

        ROOT/train/rgb/0001.jpg        ROOT/train/depth/0001.png

    Without ROOT/test, ROOT/val is the test split too, and without both it is taken from ROOT/train;
    without ROOT/train the images can be evaluated on but bins have no shots.

    An image and a depth file belong together when their paths inside ``rgb`` and ``depth`` agree
    apart from the suffix. Other layouts are described by patterns, whose wildcards must then stand
    for the same text: ``rgb: "**/*_colors.png"``, ``depth: "**/*_depth.png"``; or a list names
    the pairs. Subfolders count as scenes: a split never cuts one where there are at least ten, else
    blocks of consecutive files are held out.

    Depth files are PNG, TIFF, PGM, EXR or PFM with one channel, or ``.npy``, ``.npz`` or HDF5
    (H, W), of the same aspect as their image. `root` may also be one file that ``depthbal
    prepare`` packed; the settings of reading are then those it was packed with.

    Args:
        root: the folder with the data, or a packed file.
        rgb: folder or pattern of the images, inside `root` or inside each split's folder; or one
            folder anywhere, as an absolute path.
        depth: folder or pattern of the depth files, likewise.
        mask: folder or pattern of files of `depth`'s size with 0 where depth does not count.
        pairs: list of pairs in the place of `rgb` and `depth`, inside `root`, with rows "image
            depth" relative to it; "{split}" in its name stands for train, val and test.
        scale: metres per unit of the depth files, also as a fraction such as 1/256. null: whole
            numbers of 16 bit and more are millimetres (0.001), floating-point ones metres (1.0);
            8 bit needs a value.
        invalid: values in the depth files that mean "no depth"; 0, what is negative, NaN, infinity
            and 65535 in 16 bit always do.
        inverse: the files hold inverse depth, 1/metres after `scale`.
        test_fraction: share of one set that becomes the test split, before validation is taken; 1
            for a set to evaluate on.
        **kwargs: as for `DepthDataModule`.
    """

    kind = "folder"
    defaults: ClassVar[dict[str, Any]] = {
        **{"rgb": "rgb", "depth": "depth", "mask": None, "pairs": None},
        **{"scale": None, "invalid": [0.0], "inverse": False},
    }

    def __init__(
        self,
        root: str | Path,
        *,
        rgb: str = "rgb",
        depth: str = "depth",
        mask: str | None = None,
        pairs: str | None = None,
        scale: float | str | None = None,
        invalid: Sequence[float] = (0.0,),
        inverse: bool = False,
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        given = (rgb, depth, mask, pairs, as_scale(scale), list(invalid), inverse)
        self.reading = dict(zip(self.defaults, given, strict=True))
        self.test_fraction = test_fraction

    def file_splits(self) -> list[str]:
        """Return the splits that are folders or lists of their own, or "whole" for one set."""
        pairs = self.reading["pairs"]
        if pairs is not None:
            there = [split for split in _SPLITS if self._list(split).is_file()]
            return there if "{split}" in pairs else ["whole"]
        there = [split for split in _SPLITS if self._folder(split) != self.root]
        return there if {"val", "test"} & {*there} else ["whole"]

    def trains(self) -> bool:
        """Whether there are training pairs."""
        splits = self.splits()
        return "train" in splits or ("whole" in splits and self.test_fraction < 1)

    def files(self, split: str) -> FilePairs:
        """Return the pairs of a split's folder, or with "whole" of the root."""
        rgb, depth, mask, pairs, *reading = self.reading.values()
        if pairs is not None:
            return FilePairs(self.root, read_list(self._list(split), self.root), *reading)
        folder = self._folder("train" if split == "whole" else split)
        wanted = {"rgb": rgb, "depth": depth} | ({} if mask is None else {"mask": mask})
        files = [keyed_files(folder, *one) for one in wanted.items()]
        every, common = set().union(*files), set(files[0]).intersection(*files[1:])
        if not common:
            shown = " and ".join(f"{len(one)} files such as {min(one.values())}" for one in files)
            raise DataError(
                f"{folder}: {shown} have no name in common; give them the same stem, patterns "
                "such as --data.rgb '*_colors.png' --data.depth '*_depth.png', or a list of pairs "
                "with --data.pairs"
            )
        if single := sorted(every - common, key=natural):
            first = next(one[single[0]] for one in files if single[0] in one)
            rank_zero_warn(
                f"{folder}: {len(single)} files have no partner and are left out "
                f"(the first: {first}); {len(common)} pairs remain"
            )
        rows = [tuple(one[key] for one in files) for key in sorted(common, key=natural)]
        pairs = FilePairs(folder, rows, *reading)
        if folder != self.root:  # train/rgb/1.jpg and test/rgb/1.jpg are two pictures
            pairs.names = [f"{folder.name}/{pairs.name(i)}" for i in range(len(pairs))]
        return pairs

    def _folder(self, split: str) -> Path:
        """Return the folder of a split, the root where there is none."""
        folders = (
            path for path in self.root.glob("*") if path.name.lower() in (split, _SPLITS[split])
        )
        return next(filter(_holds_files, folders), self.root)

    def _list(self, split: str) -> Path:
        return self.root / str(self.reading["pairs"]).replace("{split}", split)

    def pairs(self, split: str) -> PairSource:
        """Return the pairs of a split's folder, or its share of the one set."""
        splits = self.splits()
        if "whole" in splits:
            source, divided = self._divided
            rows = divided.kept if split == "train" else divided.held_out
            if split == "train" or rows:
                return PairSubset(source, rows)
        elif split != "test" or "test" in splits:
            return super().pairs(split)
        # no pictures are for testing alone
        other = super().pairs("val") if "val" in splits else self._training["val"]
        if self.tested_on == "test":
            self.tested_on = "train" if other is None else "val"
            alike = " and say nothing of other pictures" if other is None else ""
            rank_zero_warn(
                f"{self.root} has no test split: its errors are those of the {self.tested_on} "
                f"split{alike}"
            )
        return other or self.train_source()

    @cached_property
    def _divided(self) -> tuple[PairSource, Division]:
        """The one set, and what of it is held out for testing."""
        whole = super().pairs("whole")
        return whole, self.divided(whole, self.test_fraction)


def keyed_files(root: Path, option: str, where: str) -> dict[str, str]:
    """Return the files of a folder or pattern inside `root` by what distinguishes them.

    In a folder and its subfolders that is the path inside it without suffix; with patterns (``*``,
    ``?``, ``**/``) what the wildcards stand for.
    """
    suffixes = IMAGE_SUFFIXES if option == "rgb" else DEPTH_SUFFIXES
    where = Path(os.path.normpath(os.path.expanduser(where))).as_posix()
    pattern = _regex(normal(where), suffixes)
    files: dict[str, str] = {}
    for folder, folders, names in os.walk(_start(root, option, where), followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder) if os.path.isabs(where) else Path(folder).relative_to(root)
        for name in sorted(names):
            path = (inside / name).as_posix()
            match = pattern.fullmatch(normal(path))
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


def _holds_files(folder: Path) -> bool:
    """Whether there is anything in a folder; splits are prepared empty and never filled."""
    found = (name for _, _, names in os.walk(folder, followlinks=True) for name in names)
    return any(not name.startswith(".") for name in found)


def _start(root: Path, option: str, where: str) -> Path:
    """Return the folder that is searched: the one given, or those before the first wildcard."""
    first = re.search(r"[*?]", where)
    start = root / (where[: first.start()].rpartition("/")[0] if first else where)
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
