"""Where a packed file comes from: recognised, opened, and compared with what it is now."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from depthbal.data.folder_files import folder_pairs, has_split_folders
from depthbal.data.images import read_raw_depth
from depthbal.data.nyud2_files import (
    BALANCED_MASK,
    TEST_CSV,
    TRAIN_CSV,
    find_data_dir,
    nyud2_pairs,
    nyud2_scale,
)
from depthbal.data.packed.labelled_mat import LabelledMat, read_official_split, read_scenes
from depthbal.data.packed.sources import Packable, PackableFiles
from depthbal.data.packed.stored_depth import StoredDepth, store_depth
from depthbal.data.splits import hold_out
from depthbal.errors import ConfigError, DataError

logger = logging.getLogger("depthbal.data")

Kind = Literal["nyud2", "labelled_mat", "folder"]
OFFICIAL_TEST_SHARE = 654 / 1449
DEFAULTS: dict[str, dict[str, Any]] = {
    "nyud2": {"train_csv": TRAIN_CSV, "test_csv": TEST_CSV},
    "labelled_mat": {"splits": None, "test_fraction": OFFICIAL_TEST_SHARE, "step": 0.001},
    "folder": {"rgb": "rgb", "depth": "depth", "scale": None, "invalid": [0.0], "step": 0.001},
}


@dataclass(frozen=True)
class Origin:
    """A source as a packed file remembers it.

    Args:
        kind: "nyud2" (the csv layout), "labelled_mat" or "folder".
        path: the folder or file.
        settings: how it is read; all keys of `DEFAULTS`, JSON-able.
    """

    kind: Kind
    path: str
    settings: dict[str, Any]

    def to_json(self) -> str:
        """Return a text that is equal for equal origins."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Origin":
        """Return the origin that `to_json` described."""
        return cls(**json.loads(text))


def find_origin(path: Path, given: dict[str, Any]) -> Origin:
    """Recognise what lies at a path.

    Args:
        path: a folder in the csv layout, ``nyu_depth_v2_labeled.mat``, or an own folder.
        given: settings that differ from `DEFAULTS`.

    Raises:
        ConfigError: a setting outside its range, or one that does not belong to what lies there.
        DataError: nothing lies there.
    """
    for name in ("scale", "step"):
        if given.get(name) is not None and not given[name] > 0:
            raise ConfigError(f"expected {name} to be positive, got {given[name]}")
    path = path.expanduser().resolve()
    lists = [given.get(name, default) for name, default in DEFAULTS["nyud2"].items()]
    kind: Kind
    if path.is_file():
        kind = "labelled_mat"
    elif any((path / inside / name).is_file() for inside in ("data", "") for name in lists):
        kind = "nyud2"
    elif path.is_dir():
        kind = "folder"
    else:
        raise DataError(f"{path} does not exist; give a folder or nyu_depth_v2_labeled.mat")
    foreign = sorted(given.keys() - DEFAULTS[kind].keys())
    if foreign:
        raise ConfigError(
            f"{path} is read as {kind!r}, for which {', '.join(foreign)} means nothing; "
            f"known: {', '.join(DEFAULTS[kind])}"
        )
    return Origin(kind, str(path), {**DEFAULTS[kind], **given})


def splits_of(origin: Origin) -> list[str]:
    """Return the names of the splits: "train", "val", "test", or "whole" for one undivided set."""
    root = Path(origin.path)
    if origin.kind == "labelled_mat":
        return ["train", "test"]
    if origin.kind == "folder":
        if not has_split_folders(root):
            return ["whole"]
        return [split for split in ("train", "val", "test") if (root / split).is_dir()]
    lists = {"train": origin.settings["train_csv"], "test": origin.settings["test_csv"]}
    return [
        split
        for split, name in lists.items()
        if any((folder / name).is_file() for folder in (root / "data", root))
    ]


def open_split(origin: Origin, split: str) -> Packable:
    """Return the pairs of a split, as they are now.

    Raises:
        DataError: the source is missing, incomplete or of another layout.
    """
    root, settings = Path(origin.path), origin.settings
    if origin.kind == "labelled_mat":
        return _open_mat_split(root, settings, split)
    if origin.kind == "nyud2":
        return PackableFiles(nyud2_pairs(root, settings[f"{split}_csv"]), _store_nyud2)
    names = ("rgb", "depth", "scale", "invalid")
    folder = root if split == "whole" else root / split
    files = folder_pairs(folder, *(settings[name] for name in names))
    reading = {name: settings[name] for name in ("scale", "invalid", "step")}
    return PackableFiles(files, partial(_store_file, **reading))


def split_fingerprint(origin: Origin, split: str) -> str:
    """Return a digest of a split of the source as it is now and of how it is read."""
    state: list[Any] = [origin.kind, origin.settings, open_split(origin, split).fingerprint()]
    if origin.kind == "nyud2" and split == "test":
        state.append(_mask_state(find_data_dir(Path(origin.path), origin.settings["test_csv"])))
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def check_unchanged(origin: Origin, split: str, fingerprint: str, packed: Path) -> None:
    """Check that a source, if it is still there, is as it was when it was packed.

    Raises:
        DataError: it changed.
    """
    try:
        now = split_fingerprint(origin, split)
    except (DataError, OSError) as error:
        if Path(origin.path).exists():
            logger.info("%s: not compared with its incomplete source (%s)", packed, error)
        return
    if now != fingerprint:
        raise DataError(
            f"{packed}: the {split} split of its source {origin.path} changed since it was packed; "
            "pack it again (tools/prepare_nyud2.py --overwrite), or move the source away if the "
            "packed file is what you want"
        )


def _mask_state(data_dir: Path) -> list[int]:
    try:
        status = (data_dir / BALANCED_MASK).stat()
    except FileNotFoundError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _open_mat_split(path: Path, settings: dict[str, Any], split: str) -> LabelledMat:
    scenes = read_scenes(path)
    if settings["splits"] is not None:
        rows = read_official_split(Path(settings["splits"]), len(scenes))[split]
    else:
        parts = hold_out(scenes, settings["test_fraction"])
        rows = np.asarray(parts.kept if split == "train" else parts.held_out, dtype=np.int64)
    return LabelledMat(path, rows, scenes, settings["step"])


def _store_nyud2(path: Path) -> StoredDepth:
    raw = read_raw_depth(path)
    return store_depth(raw, nyud2_scale(raw.dtype, str(path)), (0,), str(path))


def _store_file(path: Path, scale: float | None, invalid: list[float], step: float) -> StoredDepth:
    return store_depth(read_raw_depth(path), scale, invalid, str(path), step)
