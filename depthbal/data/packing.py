"""Packing a source into one file: what ``depthbal prepare`` does."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.io import loadmat

from depthbal.data.checks import check_pair
from depthbal.data.folder import folder_pairs, split_folders
from depthbal.data.images import MILLIMETRE, default_scale
from depthbal.data.nyud2 import (
    BALANCED_MASK,
    TEST_CSV,
    TRAIN_CSV,
    find_data_dir,
    nyud2_pairs,
    nyud2_scale,
)
from depthbal.data.packed import FORMAT, VERSION
from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.data.splits import hold_out
from depthbal.data.transforms import EvalTransform
from depthbal.errors import ConfigError, DataError
from depthbal.io import replacing, require_free

DEFAULTS: dict[str, dict[str, Any]] = {
    "nyud2": {"train_csv": TRAIN_CSV, "test_csv": TEST_CSV},
    "labelled_mat": {"splits": None, "test_fraction": 654 / 1449, "step": MILLIMETRE},
    "folder": {"rgb": "rgb", "depth": "depth", "scale": None, "invalid": [0.0], "step": MILLIMETRE},
}
_THREADS, _BLOCK = 8, 32  # no more than a block of pictures waits in memory

Settings = dict[str, Any]


class Packable(NamedTuple):
    """A split, and how its depth is stored: exactly, where the source has levels itself."""

    split: str
    pairs: PairSource
    dtype: "np.dtype[Any]"
    step: float  # metres per level
    exact: bool


def pack(
    source: Path,
    out: Path,
    short_side: int | None = 240,
    *,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> None:
    """Pack a folder in the csv layout, an own folder or ``nyu_depth_v2_labeled.mat``.

    Depth of 8 and 16 bit keeps its levels, anything else is rounded to steps.

    Args:
        source: the folder or file.
        out: the file to write; it appears when it is complete.
        short_side: pixels of the shorter image side; None keeps the sizes.
        overwrite: replace a file.
        progress: show a progress bar.
        **given: settings of reading that differ from `DEFAULTS`.

    Raises:
        ConfigError: a setting outside its range, or one that does not belong to the source.
        DataError: the source is missing or damaged, or `out` cannot be written.
        RunFolderError: `out` is a folder, or a file that is not to be replaced.
    """
    source, out = source.expanduser().resolve(), out.expanduser()
    kind, settings = _recognised(source, given)
    if out.resolve() == source:
        raise DataError(f"{out} is the source itself; name another file with --out")
    require_free(out, overwrite)
    openers = {"nyud2": _nyud2, "folder": _folder, "labelled_mat": _labelled_mat}
    origin = {"kind": kind, "path": str(source), "settings": settings}
    try:
        with replacing(out) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            file.attrs["short_side"], file.attrs["origin"] = short_side or 0, json.dumps(origin)
            for packable in openers[kind](source, settings):
                group = file.create_group(packable.split)
                _write(group, packable, EvalTransform(short_side, None), progress)
            if kind == "nyud2" and "test" in file:
                _add_mask(file["test"], find_data_dir(source, settings["test_csv"]))
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); --out names the place") from error


def _recognised(source: Path, given: Settings) -> tuple[str, Settings]:
    """Return what lies at a path, a key of `DEFAULTS`, and how it is read."""
    for name in ("scale", "step"):
        if given.get(name) is not None and not given[name] > 0:
            raise ConfigError(f"expected {name} to be positive, got {given[name]}")
    lists = [given.get(name, default) for name, default in DEFAULTS["nyud2"].items()]
    if source.is_file():
        kind = "labelled_mat"
    elif any((source / inside / name).is_file() for inside in ("data", "") for name in lists):
        kind = "nyud2"
    elif source.is_dir():
        kind = "folder"
    else:
        raise DataError(f"{source} does not exist; give a folder or nyu_depth_v2_labeled.mat")
    if foreign := sorted(given.keys() - DEFAULTS[kind].keys()):
        raise ConfigError(
            f"{source} is read as {kind!r}, for which {', '.join(foreign)} means nothing; "
            f"known: {', '.join(DEFAULTS[kind])}"
        )
    return kind, {**DEFAULTS[kind], **given}


def _write(group: Any, packable: Packable, sizes: EvalTransform, progress: bool) -> None:
    """Write all pairs of a split in one pass."""
    pairs, count = packable.pairs, len(packable.pairs)
    if count == 0:
        raise DataError(f"the {packable.split} split is empty; expected at least one pair")
    stored: dict[str, Any] = {}
    extents, digest = [], hashlib.sha256()
    title = f"Packing the {packable.split} split"
    prepared = track(_prepared(packable, sizes), title, count, transient=True, disable=not progress)
    for index, (image, levels) in enumerate(prepared):
        height, width = levels.shape
        extents.append((height, width))
        for key, array in (("image", image), ("depth", levels)):
            if key not in stored:
                stored[key] = _create(group, key, count, array)
            dataset = stored[key]
            if height > dataset.shape[1] or width > dataset.shape[2]:
                dataset.resize(np.maximum(dataset.shape, (count, *array.shape)))
            dataset[index, :height, :width] = array
            digest.update(array.tobytes())
    names, groups = ([get(at) for at in range(count)] for get in (pairs.name, pairs.group))
    digest.update(repr((packable.step, packable.dtype, extents, names, groups)).encode())
    group.attrs["scale"], group.attrs["content"] = packable.step, np.bytes_(digest.hexdigest())
    group["size"] = np.array(extents, np.int32)
    for key, texts in (("name", names), ("group", groups)):
        group.create_dataset(key, data=texts, dtype=h5py.string_dtype())


def _create(group: Any, key: str, count: int, first: NDArray[Any]) -> Any:
    """Create a data set of one chunk per sample, which grows when a larger sample comes."""
    most = (count, None, None, 3)[: first.ndim + 1]
    shape, chunks = (count, *first.shape), (1, *first.shape)
    return group.create_dataset(key, shape, first.dtype, maxshape=most, chunks=chunks)


def _prepared(packable: Packable, sizes: EvalTransform) -> Iterator[tuple[Image, NDArray[Any]]]:
    """Yield image and depth levels of all pairs, checked and resized as at training."""
    _, pairs, dtype, step, exact = packable
    most = np.iinfo(dtype).max

    def prepare(index: int) -> tuple[Image, NDArray[Any]]:
        image, metres = pairs.load(index)
        name = pairs.name(index)
        check_pair(image, metres, name)
        levels = np.rint(metres.astype(np.float64) / step)
        if exact and not np.array_equal((levels * step).astype(np.float32), metres):
            raise DataError(
                f"{name}: depth is no whole number of steps of {step:g} m, as in the first pair of "
                "the split; store all alike"
            )
        if levels.max() > most:
            raise DataError(
                f"{name}: {metres.max():g} m is more than {most} steps of {step:g} m; give a step "
                f"of at least {metres.max() / most:.2g} m (--step)"
            )
        return sizes.resize(image, nearest=False), sizes.resize(levels.astype(dtype), nearest=True)

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(pairs), _BLOCK):
            yield from pool.map(prepare, range(start, min(start + _BLOCK, len(pairs))))


def _add_mask(group: Any, data_dir: Path) -> None:
    """Put the official mask beside the test list, where there is one, into the test split."""
    path = data_dir / BALANCED_MASK
    if not path.is_file():
        return
    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: not a readable npy file of a mask ({error})") from error
    count = len(group["size"])
    if getattr(mask, "ndim", 0) != 3 or len(mask) != count:
        raise DataError(f"{path}: expected a mask of {count} test images (images, height, width)")
    group["balanced_mask"] = (mask != 0).astype(np.uint8)


# ---- what can be packed ----


def _nyud2(root: Path, settings: Settings) -> Iterator[Packable]:
    for split in ("train", "test"):
        name = settings[f"{split}_csv"]
        if any((folder / name).is_file() for folder in (root / "data", root)):
            pairs = nyud2_pairs(root, name)
            dtype = pairs.stored_dtype()
            yield Packable(split, pairs, dtype, nyud2_scale(dtype, pairs.name(0)), exact=True)


def _folder(root: Path, settings: Settings) -> Iterator[Packable]:
    reading = [settings[name] for name in ("rgb", "depth", "scale", "invalid")]
    for split in split_folders(root) or ["whole"]:
        pairs = folder_pairs(root, split, *reading)
        dtype = pairs.stored_dtype()
        if dtype in (np.uint8, np.uint16):
            step = settings["scale"] or default_scale(dtype, pairs.name(0))
            yield Packable(split, pairs, dtype, step, exact=True)
        else:
            yield Packable(split, pairs, np.dtype(np.uint16), settings["step"], exact=False)


def _labelled_mat(path: Path, settings: Settings) -> Iterator[Packable]:
    with _open_mat(path) as file:
        scenes = _scenes(file, path)
        if settings["splits"] is not None:
            rows = _official_split(Path(settings["splits"]), len(scenes))
        else:
            parts = hold_out(scenes, settings["test_fraction"])
            rows = {"train": parts.kept, "test": parts.held_out}
        for split, chosen in rows.items():
            pairs = LabelledMat(path, file, chosen, scenes)
            yield Packable(split, pairs, np.dtype(np.uint16), settings["step"], exact=False)


class LabelledMat(PairSource):
    """Some pictures of the labelled NYU Depth V2, one MATLAB 7.3 file, which is HDF5.

    ``images`` (N, 3, W, H) uint8 and ``depths`` (N, W, H) in metres are both transposed, as MATLAB
    stores columns first; ``scenes`` (1, N) refers to one string of character codes per picture.
    """

    def __init__(self, path: Path, file: Any, rows: list[int], scenes: list[str]) -> None:
        self.path, self.file, self.rows, self.scenes = path, file, rows, scenes

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return the image and the filled-in depth, turned upright."""
        try:
            image, depth = (self.file[key][self.rows[index]].T for key in ("images", "depths"))
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read ({error})") from error
        return np.ascontiguousarray(image), np.ascontiguousarray(depth, np.float32)

    def name(self, index: int) -> str:
        """Return the picture's number in the file, counted from 1 as in the official split."""
        return f"{self.path.name} picture {self.rows[index] + 1}"

    def group(self, index: int) -> str:
        """Return the scene."""
        return self.scenes[self.rows[index]]


def _open_mat(path: Path) -> Any:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not a readable MATLAB 7.3 file ({error})") from error
    images, depths = (getattr(file.get(name), "shape", None) for name in ("images", "depths"))
    if not (
        images is not None
        and images[1:2] == (3,)
        and depths == (images[0], *images[2:])
        and file["images"].dtype == np.uint8
        and file["depths"].dtype.kind == "f"
    ):
        raise DataError(
            f"{path}: expected images uint8 (N, 3, W, H) and depths (N, W, H) of floating-point "
            f"numbers, got {images} and {depths}; give nyu_depth_v2_labeled.mat"
        )
    return file


def _scenes(file: Any, path: Path) -> list[str]:
    """Return the scene of every picture; empty strings where the file names none."""
    if "scenes" not in file:
        return [""] * len(file["images"])
    try:
        references = file["scenes"][()].ravel()
        return ["".join(map(chr, file[one][()].ravel())) for one in references]
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{path}: scenes are not references to strings ({error})") from error


def _official_split(path: Path, count: int) -> dict[str, list[int]]:
    """Return the rows (from 0) of ``trainNdxs`` and ``testNdxs``, counted from 1, in a .mat."""
    names = {"train": "trainNdxs", "test": "testNdxs"}
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                content = {name: file[name][()] for name in names.values()}
        else:
            content = loadmat(str(path))
        rows = {
            split: (np.asarray(content[name], dtype=np.int64).ravel() - 1).tolist()
            for split, name in names.items()
        }
    except Exception as error:  # scipy names no common error
        raise DataError(
            f"{path}: not the official splits.mat ({error!r}); give that, or no --splits"
        ) from error
    chosen = rows["train"] + rows["test"]
    if not all(rows.values()) or min(chosen) < 0 or max(chosen) >= count:
        raise DataError(f"{path}: expected indices from 1 to {count} in both splits")
    if len(set(chosen)) != len(chosen):
        raise DataError(f"{path}: some pictures are listed twice or in both splits")
    return rows
