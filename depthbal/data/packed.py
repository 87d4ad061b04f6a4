"""One HDF5 file instead of a hundred thousand image files, written by ``depthbal prepare``.

    /             format, version, short_side (0: sizes kept), origin (JSON: kind, path, settings)
    /SPLIT        scale (metres per level), content (digest of all that follows)
      image       uint8 (N, H, W, 3), a chunk per sample, no filter
      depth       uint8 or uint16 (N, H, W), levels, 0 = no depth, likewise
      size        (N, 2), the height and width that a sample fills of H x W
      name, group text
      balanced_mask  optional, uint8 (N, h, w): the official test pixels

The splits are "train", "val" and "test", or "whole" for one undivided set. Version 1, written by
depthbal 0.1, holds more than this, of which nothing is needed.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from depthbal.data.cache import cache_file
from depthbal.data.images import to_metres
from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.errors import ConfigError, DataError, DepthbalError
from depthbal.io import replacing

FORMAT, VERSION = "depthbal packed pairs", 2
SPLITS = ("train", "val", "test", "whole")
_PARTS = ("image", "depth")
_TOOL = "depthbal prepare"


class PackedPairs(PairSource):
    """One split of a packed file.

    HDF5's own state does not survive a fork: every process opens the file itself, at its first
    sample. Any number of forked or spawned processes may therefore share a source.
    """

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        self.split = split
        with open_packed(path) as file:
            self.origin: dict[str, Any] = json.loads(file.attrs["origin"])
            self.short_side = int(file.attrs["short_side"]) or None
            if split not in file:
                there = ", ".join(name for name in SPLITS if name in file)
                raise DataError(f"{path} has no {split} split (packed: {there})")
            group = file[split]
            self.scale = float(group.attrs["scale"])
            self._dtype: np.dtype[Any] = group["depth"].dtype
            self._content = bytes(group.attrs["content"]).decode()
            self._sizes: list[list[int]] = group["size"][()].tolist()
            self._names, self._groups = (group[key].asstr()[()] for key in ("name", "group"))
        self._opened: tuple[int, dict[str, Any]] = 0, {}  # by which process; file and data sets

    def __len__(self) -> int:
        return len(self._sizes)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (h, w, 3) RGB and depth float32 (h, w) in metres, 0 = no depth."""
        return self._read("image", index), self.load_depth(index)

    def load_depth(self, index: int) -> Depth:
        """Return the depth map, float32 (h, w) in metres."""
        return to_metres(self._read("depth", index), self.scale, (0,), self.name(index))

    def stored_dtype(self) -> "np.dtype[Any]":
        """Return the type of number that depth is stored as."""
        return self._dtype

    def name(self, index: int) -> str:
        """Return what the source called this pair."""
        return str(self._names[index])

    def group(self, index: int) -> str:
        """Return the scene that the source gave this pair."""
        return str(self._groups[index])

    def fingerprint(self) -> str:
        """Return the digest of all samples, names and groups; a moved file keeps it."""
        return self._content

    def balanced_mask(self) -> Path | None:
        """Put the official test mask, where there is one, into the cache as the usual npy file."""
        with open_packed(self.path) as file:
            if "balanced_mask" not in file[self.split]:
                return None
            mask = file[self.split]["balanced_mask"][()].astype(bool)
        target = cache_file("masks", f"{self._content}.npy")
        with suppress(OSError, ValueError, EOFError):
            if np.array_equal(np.load(target, allow_pickle=False), mask):
                return target
        try:
            with replacing(target) as temporary:
                np.save(temporary, mask)
        except OSError as error:
            raise DataError(
                f"{target}: the balanced mask of {self.path} cannot be put there "
                f"({error.strerror}); set XDG_CACHE_HOME to a folder that can be written"
            ) from error
        return target

    def _read(self, key: str, index: int) -> NDArray[Any]:
        height, width = self._sizes[index]
        try:
            process, parts = self._opened
            if process != os.getpid():
                self._opened, parts = (0, {}), {}  # closes what a fork brought along
                # without a chunk cache, a sample's bytes go straight into its array
                file = h5py.File(self.path, "r", rdcc_nbytes=0)
                parts = {"file": file, **{part: file[self.split][part] for part in _PARTS}}
                self._opened = os.getpid(), parts
            stored: NDArray[Any] = parts[key][index, :height, :width]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.path}: {self.name(index)} cannot be read ({error})") from error
        return stored

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": (0, {})}


def is_packed(root: Path) -> bool:
    """Return whether a data module's root means a packed file rather than a folder."""
    return root.is_file() or (root.suffix.lower() in (".h5", ".hdf5") and not root.is_dir())


def packed_splits(path: Path) -> list[str]:
    """Return the splits of a packed file: "train", "val" and "test", or "whole"."""
    with open_packed(path) as file:
        return [name for name in SPLITS if name in file]


@contextmanager
def open_packed(path: Path) -> Iterator[Any]:
    """Open a packed file; what is wrong with it is said with its name and the way out."""
    again = f"pack it again: {_TOOL} SOURCE --out {path} --overwrite"
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a folder or a file packed by {_TOOL}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path} is an HDF5 file, but not one written by {_TOOL}")
            version = int(file.attrs["version"])
            if not 1 <= version <= VERSION or not file.attrs.get("complete", True):
                raise DataError(
                    f"{path} is unfinished, or of a version ({version}) that this depthbal does "
                    f"not read; {again}"
                )
            yield file
    except DepthbalError:
        raise
    except (ArithmeticError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        # damage shows as whatever the bytes happen to say: text, numbers, JSON or structure
        raise DataError(f"{path}: no packed file, or a damaged one ({error}); {again}") from error


def open_root(
    root: Path,
    split: str,
    kinds: Sequence[str],
    short_side: int | None,
    given: dict[str, tuple[Any, Any]],
) -> PackedPairs:
    """Return a split of a packed file, if it holds what the data module would have read itself.

    `kinds` are the sources that it reads, `given` its other settings of reading and their
    defaults: one that is not the default must be what the file was packed with.
    """
    pairs = PackedPairs(root, split)
    origin = pairs.origin
    if origin["kind"] not in kinds:
        reader = "FolderDataModule" if origin["kind"] == "folder" else "NYUD2DataModule"
        raise DataError(f"{root} was packed from {origin['path']}; read it with {reader}")
    if pairs.short_side not in (None, short_side):
        raise ConfigError(
            f"{root} holds pictures of short side {pairs.short_side}, and short_side is "
            f"{short_side}; set short_side: {pairs.short_side}, or pack again with --short-side"
        )
    for name, (value, default) in given.items():
        packed = origin["settings"].get(name, default)
        # as text, in which NaN equals NaN
        if json.dumps(value) not in (json.dumps(default), json.dumps(packed)):
            raise ConfigError(
                f"{root} was packed with {name}: {packed}, and {name} is {value}; leave it out, "
                "or pack again"
            )
    return pairs
