"""Own data: images and depth maps in folders, paired by their names."""

import math
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from depthbal.data.coding import Coding, decoded
from depthbal.data.images import DEPTH_SUFFIXES, IMAGE_SUFFIXES, as_scale
from depthbal.data.layouts import LAYOUTS, LayoutName, split_of
from depthbal.data.packed import RootDataModule
from depthbal.data.pairs import FilePairs, PairSource, PairSubset, natural, normal, read_list
from depthbal.data.splits import Division
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Label

_SPLITS = {"train": "training", "val": "validation", "test": "testing"}
_WILDCARDS = {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}
_IN_BRACES = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]", ",": "|"}


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

    Published data need no patterns: ``layout`` has them, the unit, the range and the rest by the
    data's name (docs/layouts.md), each of which an option of its own changes.

    Depth files are PNG, TIFF, PGM, EXR or PFM with one channel, or ``.npy``, ``.npz`` or HDF5
    (H, W), of the same aspect as their image. `root` may also be one file that ``depthbal
    prepare`` packed; the settings of reading are then those it was packed with.

    Args:
        root: the folder with the data, or a packed file.
        layout: whose data they are; null or custom: as described above. Options that are null or
            "layout" are the layout's.
        rgb: folder or pattern of the images, inside `root` or inside each split's folder; or one
            folder anywhere, as an absolute path. null: "rgb".
        depth: folder or pattern of the depth files, likewise. null: "depth". What stands in braces
            need not agree in both: "{wide,color}/*.png", "{**/}" for any folders.
        mask: folder or pattern of files of `depth`'s size with 0 where depth does not count.
        pairs: list of pairs in the place of `rgb` and `depth`, inside `root`, with rows "image
            depth" relative to it; "{split}" in its name stands for train, val and test.
        scale: metres per unit of the depth files, also as a fraction such as 1/256. null: whole
            numbers of 16 bit and more are millimetres (0.001), floating-point ones metres (1.0);
            8 bit needs a value.
        invalid: values in the depth files that mean "no depth"; 0, what is negative, NaN, infinity
            and 65535 in 16 bit always do, unless they are `sky`.
        inverse: the files hold inverse depth, 1/metres after `scale`.
        sky: values in the depth files that mean "known to lie beyond the range": sky, or the last
            value of a sensor that is saturated; not the holes of a lidar.
        sky_mask: folder or pattern of files of `depth`'s size that say where the sky is.
        sky_labels: the values there that mean sky; none: all but 0.
        distance: whether the files hold depth along the optical axis, or the length of the ray.
        intrinsics: fx, fy, cx, cy in pixels of the depth maps, for rays; the centre of the upper
            left pixel is at 0, 0.
        test_scenes: names of the folders whose pictures are the test split.
        test_fraction: share of one set that becomes the test split, before validation is taken; 1
            for a set to evaluate on.
        depth_range: metres between which depth counts; null: 0.7 to 10.
        short_side: pixels of the shorter image side after resizing; null keeps the size.
        crop_size: (height, width) of the crop; null keeps everything.
        crop_at: where the crop lies, in the centre or at the bottom of the image's centre.
        label: what the files hold, in a word, such as height.
        unit: of it, for which all words "metres" stand here.
        zero_is_label: whether 0, and what is negative, are labels, as of heights; then NaN, what a
            GeoTIFF's tag GDAL_NODATA says, and `invalid` (none, unless given) are no label.
        **kwargs: as for `DepthDataModule`.
    """

    kind = "folder"
    defaults: ClassVar[dict[str, Any]] = {
        **{"rgb": "rgb", "depth": "depth", "mask": None, "sky_mask": None, "pairs": None},
        **{"scale": None, "invalid": [0.0], "inverse": False, "sky": [], "sky_labels": []},
        **{"distance": "planar", "intrinsics": None, "test_scenes": [], "zero_is_label": False},
    }

    def __init__(
        self,
        root: str | Path,
        *,
        layout: LayoutName | None = None,
        rgb: str | None = None,
        depth: str | None = None,
        mask: str | None = None,
        pairs: str | None = None,
        scale: float | str | None = None,
        invalid: Sequence[float] | None = None,
        inverse: bool | None = None,
        sky: Sequence[float] | None = None,
        sky_mask: str | None = None,
        sky_labels: Sequence[float] | None = None,
        distance: Literal["planar", "ray"] | None = None,
        intrinsics: tuple[float, float, float, float] | None = None,
        test_scenes: Sequence[str] | None = None,
        test_fraction: float = 0.1,
        depth_range: tuple[float, float] | None = None,
        short_side: int | Literal["layout"] | None = "layout",
        crop_size: tuple[int, int] | Literal["layout"] | None = "layout",
        crop_at: Literal["centre", "bottom"] | None = None,
        label: str = "depth",
        unit: str = "m",
        zero_is_label: bool = False,
        **kwargs: Any,
    ) -> None:
        self.label, self.zero_is_label = Label(label, unit), zero_is_label
        if zero_is_label and (inverse or 0 in (invalid or [])):
            raise ConfigError(
                f"0 is a {label} (--data.zero_is_label true), and by --data.invalid or inverse it "
                "is none; give one of them"
            )
        if layout not in (None, *LAYOUTS):
            raise ConfigError(f"expected a layout of {', '.join(LAYOUTS)}, got {layout!r}")
        self.layout, own = layout or "custom", LAYOUTS[layout or "custom"]
        super().__init__(
            root,
            depth_range=depth_range or own.get("depth_range", (0.7, 10.0)),
            short_side=own.get("short_side", 240) if short_side == "layout" else short_side,
            crop_size=own.get("crop_size") if crop_size == "layout" else crop_size,
            crop_at=crop_at or own.get("crop_at", "centre"),
            **kwargs,
        )
        if zero_is_label and invalid is None:
            invalid = []
        given = {
            **{"rgb": rgb, "depth": depth, "mask": mask, "sky_mask": sky_mask, "pairs": pairs},
            **{"scale": as_scale(scale), "invalid": invalid, "inverse": inverse, "sky": sky},
            **{"sky_labels": sky_labels, "distance": distance, "intrinsics": intrinsics},
            **{"test_scenes": test_scenes, "zero_is_label": zero_is_label},
        }
        self.reading = {
            name: own.get(name, self.defaults[name]) if value is None else value
            for name, value in given.items()
        }
        if pairs is None and not any(self._list(split).is_file() for split in _SPLITS):
            self.reading["pairs"] = None  # the layout's, where nobody has put it
        if self.reading["distance"] == "ray" and self.reading["intrinsics"] is None:
            raise ConfigError(
                "the length of a ray becomes depth by the camera's intrinsics: expected "
                "--data.intrinsics FX FY CX CY in pixels of the depth maps, got none"
            )
        self.test_fraction = test_fraction

    def file_splits(self) -> list[str]:
        """Return the splits that are folders or lists of their own, or "whole" for one set."""
        pairs = self.reading["pairs"]
        if pairs is not None:
            there = [split for split in _SPLITS if self._list(split).is_file()]
            return there if "{split}" in pairs else ["whole"]
        if self._official is not None:
            return [split for split in _SPLITS if split in self._official] or ["whole"]
        there = [split for split in _SPLITS if self._folder(split) != self.root]
        return there if {"val", "test"} & {*there} else ["whole"]

    def trains(self) -> bool:
        """Whether there are training pairs."""
        splits = self.splits()
        return "train" in splits or ("whole" in splits and self.test_fraction < 1)

    def files(self, split: str) -> FilePairs:
        """Return the pairs of a split's folder, or with "whole" of the root."""
        own, reading, folder = LAYOUTS[self.layout], self.reading, self.root
        if reading["pairs"] is not None:
            rows = read_list(self._list(split), folder, places=own.get("places", ()))
        elif self._official is not None:
            rows = self._official[split] if split != "whole" else self._rows(folder)
        else:
            folder = self._folder("train" if split == "whole" else split)
            rows = self._rows(folder)
        pairs = FilePairs(
            folder,
            rows,
            reading["scale"],
            Coding(
                tuple(reading["invalid"]),
                tuple(reading["sky"]),
                reading["inverse"],
                own.get("rotate_bits", 0),
                none=math.nan if self.zero_is_label else 0.0,
            ),
            sky_labels=reading["sky_labels"],
            camera=tuple(reading["intrinsics"]) if reading["distance"] == "ray" else None,
            calibration=own.get("calibration"),
            scene=own.get("scene", ""),
            turns=own["turns"](self.root) if "turns" in own else None,
        )
        self._require_far(pairs)
        if folder != self.root:  # train/rgb/1.jpg and test/rgb/1.jpg are two pictures
            pairs.names = [f"{folder.name}/{pairs.name(i)}" for i in range(len(pairs))]
        return pairs

    def _rows(self, folder: Path) -> list[tuple[str, ...]]:
        """Return the paths inside a folder of image and depth, and of masks where there are any."""
        wanted = {name: self.reading[name] for name in ("rgb", "depth", "mask", "sky_mask")}
        own = LAYOUTS[self.layout]
        while wanted[[*wanted][-1]] is None:
            wanted.popitem()
        try:
            if "rows" in own and (wanted["rgb"], wanted["depth"]) == ("rgb", "depth"):
                return list(own["rows"](folder))
            files = [where and keyed_files(folder, name, where) for name, where in wanted.items()]
        except DataError as error:
            raise DataError(f"{error}{self._what_is_there(folder)}") from error
        given = [one for one in files if one is not None]
        every, common = set().union(*given), set(given[0]).intersection(*given[1:])
        if not common:
            shown = " and ".join(f"{len(one)} files such as {min(one.values())}" for one in given)
            raise DataError(
                f"{folder}: {shown} have no name in common; give them the same stem, patterns "
                "such as --data.rgb '*_colors.png' --data.depth '*_depth.png', or a list of pairs "
                "with --data.pairs"
            )
        if single := sorted(every - common, key=natural):
            first = next(one[single[0]] for one in given if single[0] in one)
            rank_zero_warn(
                f"{folder}: {len(single)} files have no partner and are left out "
                f"(the first: {first}); {len(common)} pairs remain"
            )
        keys = sorted(common, key=natural)
        return [tuple("" if one is None else one[key] for one in files) for key in keys]

    @cached_property
    def _official(self) -> dict[str, list[tuple[str, ...]]] | None:
        """The pairs of the splits that a list of the data's authors, or `test_scenes`, names."""
        splits = {"*": "train"} | dict.fromkeys(self.reading["test_scenes"], "test")
        if len(splits) == 1:
            splits = LAYOUTS[self.layout].get("split", lambda root: {})(self.root)
        found: dict[str, list[tuple[str, ...]]] = {}
        for row in self._rows(self.root) if splits else []:
            if split := split_of(row, splits):
                found.setdefault(split, []).append(row)
        if self.reading["test_scenes"] and "test" not in found:
            listed = ", ".join(self.reading["test_scenes"])
            raise DataError(f"{self.root}: no picture lies in a folder of test_scenes ({listed})")
        return found if splits else None

    def _what_is_there(self, folder: Path) -> str:
        """Return what a folder holds, and which layout was asked for."""
        inside = sorted(f"{one.name}{'/' * one.is_dir()}" for one in folder.glob("*"))
        told = f"; there are {', '.join(inside[:5])}{', ...' * (len(inside) > 5)}" if inside else ""
        asked = f" (asked for by --data.layout {self.layout})" if self.layout != "custom" else ""
        return told + asked

    def _require_far(self, pairs: FilePairs) -> None:
        """Check that what means sky does not mean a depth inside the range as well."""
        plain, (low, high) = pairs.coding._replace(sky=(), invalid=()), self.depth_range
        for value in filter(math.isfinite, pairs.coding.sky):
            metres = decoded(np.array([[value]], pairs.dtype), pairs.unit, plain)[0, 0]
            if 0 < metres < high:
                raise ConfigError(
                    f"--data.sky {value:g} is {metres:g} m at scale {pairs.unit:g}, and depth "
                    f"counts from {low:g} to {high:g} m: expected a value beyond; change it, or "
                    "end --data.depth_range before it"
                )

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
    first = re.search(r"[*?{]", where)
    start = root / (where[: first.start()].rpartition("/")[0] if first else where)
    if not start.is_dir():
        raise DataError(
            f"{start.absolute()} is not a folder, and --data.{option} is {where!r}; give a folder "
            f"in --data.root, or a pattern such as '**/*_{option}.png'"
        )
    return start


def _regex(where: str, suffixes: Sequence[str]) -> re.Pattern[str]:
    """Translate so that every wildcard is a group: what the groups match is the key."""
    if not set(where) & set("*?{"):
        endings = "|".join(re.escape(suffix) for suffix in suffixes)
        return re.compile(rf"{re.escape(where)}/(.+)(?i:{endings})")
    text = ""
    for braced, plain in re.findall(r"\{(.*?)\}|([^{]+)", where):
        known = _IN_BRACES if braced else _WILDCARDS
        parts = re.split(r"(\*\*/|\*|\?|,)", braced or plain)
        found = "".join(known.get(part, re.escape(part)) for part in parts)
        text += f"(?:{found})" if braced else found
    # a pattern that ends in "*" leaves the suffix open, and it must not be part of the key
    return re.compile(text + r"(?:\.[^./]+)" * where.endswith("*"))
