"""One HDF5 file instead of a hundred thousand image files, written by ``depthbal prepare``.

    /             format, version, short_side (0: sizes kept), origin (JSON: kind, path, settings)
    /SPLIT        scale (metres per level), content (digest of all that follows)
      image       uint8 (N, H, W, 3), a chunk per sample, no filter
      depth       uint8 or uint16 (N, H, W), levels, 0 = no depth, likewise; in a split that has
                  the attribute beyond, its number is that of pixels known to lie beyond the range;
                  where 0 is a label the attribute zero is its level, and level 0 still none
      size        (N, 2), the height and width that a sample fills of H x W
      name, group, image_path  text
      balanced_mask  optional, uint8 (N, h, w): the official test pixels

The splits are "train", "val" and "test", or "whole" for one set.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from depthbal.data.cache import cache_file, cached
from depthbal.data.coding import Coding, decoded
from depthbal.data.datamodule import DepthDataModule
from depthbal.data.images import Depth, Image
from depthbal.data.pairs import FilePairs, PairSource
from depthbal.errors import ConfigError, DataError, DepthbalError

FORMAT, VERSION = "depthbal packed pairs", 2
SPLITS = ("train", "val", "test", "whole")
_PARTS = ("image", "depth")


class PackedPairs(PairSource):
    """One split of a packed file, which any number of forked or spawned processes may share.

    HDF5's own state does not survive a fork: every process opens the file at its first sample.
    """

    def __init__(self, path: Path, split: str) -> None:
        self.path, self.split = path, split
        with open_packed(path) as file:
            self.origin: dict[str, Any] = json.loads(file.attrs["origin"])
            self.short_side = int(file.attrs["short_side"]) or None
            group = file[split]
            self.scale = float(group.attrs["scale"])
            self.levels = group["depth"].dtype, self.scale
            self.beyond, self.zero = "beyond" in group.attrs, int(group.attrs.get("zero", 0))
            self.none = math.nan if self.zero else 0.0
            sky = (float(group.attrs["beyond"]),) if self.beyond else ()
            self.coding = Coding((), sky, offset=-self.zero, none=self.none)
            self._content = bytes(group.attrs["content"]).decode()
            self._sizes: list[list[int]] = group["size"][()].tolist()
            keys = ("name", "group", "image_path")
            self.names, self.groups, self.image_paths = (group[key].asstr()[()] for key in keys)
        self._opened: tuple[int, dict[str, Any]] = 0, {}  # by which process; file and data sets

    def __len__(self) -> int:
        return len(self._sizes)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (h, w, 3) RGB and depth float32 (h, w) in metres, 0 = no depth."""
        return self._read("image", index), self.load_depth(index)

    def load_depth(self, index: int) -> Depth:
        """Return the depth map, float32 (h, w) in metres."""
        levels = self._read("depth", index)
        depth = decoded(levels, self.scale, self.coding)
        if self.zero:
            depth[levels == 0] = self.none
        return depth

    def fingerprint(self) -> str:
        """Return the digest of all samples, names and groups; a moved file keeps it."""
        return self._content

    def balanced_mask(self) -> Path | None:
        """Put the official test mask, where there is one, into the cache as the usual npy file."""
        with open_packed(self.path) as file:
            if "balanced_mask" not in file[self.split]:
                return None
            mask = file[self.split]["balanced_mask"][()].astype(bool)
        target = cache_file("masks", f"{hashlib.sha256(mask.tobytes()).hexdigest()}.npy")
        cached(target, np.load, lambda: mask, np.save)
        return target

    def _read(self, key: str, index: int) -> NDArray[Any]:
        height, width = self._sizes[index]
        try:
            process, parts = self._opened
            if process != os.getpid():
                self._opened, parts = (0, {}), {}  # closes what a fork brought along
                # without a chunk cache, a sample's bytes go straight into its array
                file = h5py.File(self.path, "r", rdcc_nbytes=0)
                parts = {"file": file} | {part: file[self.split][part] for part in _PARTS}
                self._opened = os.getpid(), parts
            return np.asarray(parts[key][index, :height, :width])
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.path}: {self.name(index)} cannot be read ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": (0, {})}


class RootDataModule(DepthDataModule):
    """Pairs under a root: the `files` of its splits, or one file that was packed from them."""

    kind: ClassVar[str]
    defaults: ClassVar[dict[str, Any]]
    reading: dict[str, Any]  # settings that the files depend on

    def __init__(self, root: str | Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self.packed = self.root.is_file() or self.root.suffix.lower() in (".h5", ".hdf5")

    def file_splits(self) -> list[str]:
        """Return the splits that are files: "train", "val" and "test", or "whole" for one set."""
        raise NotImplementedError

    def files(self, split: str) -> FilePairs:
        """Return the files of a split, checked for their existence."""
        raise NotImplementedError

    def splits(self) -> list[str]:
        """Return the splits that are files, or were when they were packed."""
        if not self.packed:
            return self.file_splits()
        with open_packed(self.root) as file:
            return [name for name in SPLITS if name in file]

    def train_source(self) -> PairSource:
        """Return the training pairs, validation not yet taken out."""
        return self.pairs("train")

    def val_source(self) -> PairSource | None:
        """Return validation pairs of their own, or None."""
        return self.pairs("val") if "val" in self.splits() else None

    def test_source(self) -> PairSource:
        """Return the test pairs."""
        return self.pairs("test")

    def pairs(self, split: str) -> PairSource:
        """Return the files of a split, or what was packed from them with the same settings."""
        if not self.packed:
            return self.files(split)
        pairs, short_side = PackedPairs(self.root, split), self.eval_transform.short_side
        kind, path, settings = (pairs.origin[key] for key in ("kind", "path", "settings"))
        if (kind == "folder") != (self.kind == "folder"):
            reader = "FolderDataModule" if kind == "folder" else "NYUD2DataModule"
            raise DataError(f"{self.root} was packed from {path}; read it with {reader}")
        known = self.defaults | {"short_side": pairs.short_side or short_side}
        for name, value in {**self.reading, "short_side": short_side}.items():
            stored = settings.get(name, known[name])
            # as text, in which NaN equals NaN
            fixed = name == "zero_is_label"  # what stands in the file goes by it
            given = (stored if fixed else known[name], stored)
            if json.dumps(value) not in map(json.dumps, given):
                raise ConfigError(
                    f"{self.root} was packed with {name}: {stored}, and {name} is {value}; set it "
                    "to that, or pack again"
                )
        return pairs

    def check_root(self) -> None:
        """Check that all files are there, without reading them."""
        if self.trains():
            self.train_source()
        self.test_source()

    def source_name(self) -> str:
        """Return the root folder or the packed file."""
        return str(self.root.absolute())


@contextmanager
def open_packed(path: Path) -> Iterator[Any]:
    """Open a packed file; what is wrong with it is said with its name and the way out."""
    again = f"pack it again: depthbal prepare SOURCE --out {path} --overwrite"
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs["version"]) if file.attrs.get("format") == FORMAT else 0
            if version != VERSION:
                raise DataError(
                    f"{path} is foreign, or of a version ({version}) that this depthbal does not "
                    f"read; {again}"
                )
            yield file
    except DepthbalError:
        raise
    except (ArithmeticError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        # damage shows as whatever the bytes happen to say: text, numbers, JSON or structure
        raise DataError(f"{path}: no packed file, or a damaged one ({error}); {again}") from error
