"""Layouts of published depth data: defaults of `FolderDataModule`'s options by name.

An entry holds options under their own names, and what no option says: `split`, which split a folder
belongs to by the official list; `rows`, the pairs where names do not tell; `turns`, the EXIF
orientation of a folder's pictures; `scene`, what of an image's path is one scene;
`rotate_bits` and `calibration` of the decoding. docs/layouts.md is the table for people.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.io import loadmat
from scipy.spatial import KDTree

from depthbal.errors import DataError

LayoutName = Literal[
    "custom",
    "arkit",
    "diode",
    "hypersim",
    "kitti",
    "middlebury",
    "scannet",
    "sevenscenes",
    "sunrgbd",
    "tum",
    "vkitti2",
]
_SECONDS = 0.02  # between a picture and its depth map, as TUM's tool has it
_TURNS = {"Left": 6, "Right": 8, "Down": 3}  # EXIF's quarter turns, by where the sky is
_MILLIMETRES = {"uint16": 0.001}


def split_of(row: Sequence[str], splits: Mapping[str, str]) -> str | None:
    """Return the split of a pair by the folders in the paths of its files; "*" holds for others."""
    lengths = {key.count("/") + 1 for key in splits}
    for path in row[:2]:
        parts = path.split("/")
        for length in lengths:
            for first in range(len(parts) - length + 1):
                if found := splits.get("/".join(parts[first : first + length])):
                    return found
    return splits.get("*")


def _lines(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the split of every name in lists of names."""
    there = [(split, path) for split, path in files.items() if path.is_file()]
    return {name: split for split, path in there for name in path.read_text().split()}


def _scannet(root: Path) -> dict[str, str]:
    return _lines({split: root / f"scannetv2_{split}.txt" for split in ("train", "val", "test")})


def _sevenscenes(root: Path) -> dict[str, str]:
    """Lines are "sequence1" for the folder seq-01 beside the list."""
    splits = {}
    for folder in (root, *root.glob("*/")):
        lists = {split.lower(): folder / f"{split}Split.txt" for split in ("Train", "Test")}
        above = "" if folder == root else f"{folder.name}/"
        for name, split in _lines(lists).items():
            if number := re.search(r"\d+", name):
                splits[f"{above}seq-{int(number[0]):02d}"] = split
    return splits


def _sunrgbd(root: Path) -> dict[str, str]:
    """Cells are the authors' paths of frames, "/n/fs/sun3d/data/SUNRGBD/kv2/...": what follows."""
    splits = {}
    for path in root.glob("**/traintest*/allsplit.mat"):
        cells = loadmat(str(path))
        for split in ("train", "test"):
            for cell in cells[f"all{split}"].ravel():
                splits[str(cell.item()).rpartition("SUNRGBD/")[2].strip("/")] = split
    return splits


def _table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a csv file that need not be there."""
    return [*csv.DictReader(path.read_text("utf-8-sig").splitlines())] if path.is_file() else []


def _hypersim(root: Path) -> dict[str, str]:
    rows = _table(root / "metadata_images_split_scene_v1.csv")
    rows = [row for row in rows if row["included_in_public_release"] == "True"]
    return {row["scene_name"]: row["split_partition_name"] for row in rows}


def _arkit(root: Path) -> dict[str, int]:
    rows = _table(root / "metadata.csv")
    return {row["video_id"]: _TURNS.get(row["sky_direction"], 1) for row in rows}


def _tum(root: Path) -> list[tuple[str, str]]:
    """Return pairs nearest in time, each file once, of a sequence or a folder of them."""
    rows = []
    for folder in sorted(one.parent for one in (*root.glob("rgb.txt"), *root.glob("*/rgb.txt"))):
        stamps = []
        for name in ("rgb.txt", "depth.txt"):
            if not (path := folder / name).is_file():
                raise DataError(f"{path} is missing, which says when the pictures were taken")
            lines = [line.split()[:2] for line in path.read_text().splitlines()]
            stamps.append(sorted((float(t), at) for t, at in lines if not t.startswith("#")))
        one, other = (KDTree(np.array([time for time, _ in part])[:, None]) for part in stamps)
        near = one.sparse_distance_matrix(other, _SECONDS, output_type="ndarray")
        pictures: dict[int, int] = {}
        taken: set[int] = set()
        for index, at, _ in np.sort(near, order=["v", "i", "j"]).tolist():
            if index not in pictures and at not in taken:
                pictures[index] = at
                taken.add(at)
        where = folder.relative_to(root)
        rows += [
            ((where / stamps[0][index][1]).as_posix(), (where / stamps[1][at][1]).as_posix())
            for index, at in sorted(pictures.items())
        ]
    if not rows:
        raise DataError(
            f"{root}: no rgb.txt and depth.txt with pictures within {_SECONDS} s, in it or in its "
            "folders; give --data.root a sequence of TUM RGB-D, or a folder of them"
        )
    return rows


_KITTI: dict[str, Any] = {
    "depth_range": (1.0, 80.0),
    "short_side": None,
    "crop_size": (352, 1216),
    "crop_at": "bottom",
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "custom": {},
    "arkit": {
        "rgb": "**/{color,wide}/*.png",
        "depth": "**/highres_depth/*.png",
        "scale": _MILLIMETRES,
        "depth_range": (0.3, 10.0),
        "turns": _arkit,
    },
    "diode": {
        "rgb": "**/*.png",
        "depth": "**/*_depth.npy",
        "mask": "**/*_depth_mask.npy",
        "depth_range": (0.6, 350.0),
        "scene": r"scene_\d+",
    },
    "hypersim": {
        "rgb": "{**/}*/images/scene_*_final_preview/frame.*.tonemap.jpg",
        "depth": "{**/}*/images/scene_*_geometry_hdf5/frame.*.depth_meters.hdf5",
        "distance": "ray",
        "intrinsics": (886.81, 886.81, 511.5, 383.5),
        "depth_range": (0.3, 65.0),
        "scene": r"ai_\d+_\d+",
        "split": _hypersim,
    },
    "kitti": {
        "rgb": "{**/}*_sync/image_0?/data/*",
        "depth": "{**/}*_sync/proj_depth/groundtruth/image_0?/*.png",
        "pairs": "kitti_eigen_{split}_files_with_gt.txt",
        "places": (
            *("raw", "gts", "train", "val", "data_depth_annotated"),
            *("data_depth_annotated/train", "data_depth_annotated/val"),
        ),
        "scale": {"uint16": 1 / 256},
        "scene": r"[^/]*_sync",
        "split": lambda root: {"train": "train", "val": "val"},
        **_KITTI,
    },
    "middlebury": {
        "rgb": "**/im0.png",
        "depth": "**/{disp0,disp0GT}.pfm",
        "calibration": "calib.txt",
        "depth_range": (1.0, 10.0),
    },
    "scannet": {
        "rgb": "**/color/*.jpg",
        "depth": "**/depth/*.png",
        "scale": _MILLIMETRES,
        "depth_range": (0.3, 10.0),
        "scene": r"scene\d+",
        "split": _scannet,
    },
    "sevenscenes": {
        "rgb": "**/*.color.png",
        "depth": "**/*.depth.png",
        "scale": _MILLIMETRES,
        "depth_range": (0.3, 10.0),
        "split": _sevenscenes,
    },
    "sunrgbd": {
        "rgb": "**/image/{*}.jpg",
        "depth": "**/depth/{*}.png",
        "scale": _MILLIMETRES,
        "rotate_bits": 3,
        "depth_range": (0.3, 8.0),
        "split": _sunrgbd,
    },
    "tum": {"rows": _tum, "scale": {"uint16": 1 / 5000}, "depth_range": (0.5, 10.0)},
    "vkitti2": {
        "rgb": "{**/}Scene??/*/frames/rgb/*/rgb_*.jpg",
        "depth": "{**/}Scene??/*/frames/depth/*/depth_*.png",
        "scale": {"uint16": 0.01},
        "sky": (65535.0,),
        "scene": r"Scene\d+",
        "test_scenes": ("Scene20",),
        **_KITTI,
    },
}
