"""Packing a source into one file: what ``tools/prepare_nyud2.py`` does."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.io import loadmat

from depthbal.data.checks import check_depth, check_pair
from depthbal.data.files import FilePairs
from depthbal.data.folder import folder_pairs, split_folders
from depthbal.data.images import MILLIMETRE, default_scale, read_image, read_raw_depth, to_metres
from depthbal.data.nyud2 import (
    BALANCED_MASK,
    TEST_CSV,
    TRAIN_CSV,
    find_data_dir,
    nyud2_pairs,
    nyud2_scale,
)
from depthbal.data.packed import FORMAT, VERSION
from depthbal.data.pairs import Image
from depthbal.data.splits import hold_out
from depthbal.data.transforms import EvalTransform
from depthbal.errors import ConfigError, DataError
from depthbal.files import replacing, require_free

OFFICIAL_TEST_SHARE = 654 / 1449
DEFAULTS: dict[str, dict[str, Any]] = {
    "nyud2": {"train_csv": TRAIN_CSV, "test_csv": TEST_CSV},
    "labelled_mat": {"splits": None, "test_fraction": OFFICIAL_TEST_SHARE, "step": MILLIMETRE},
    "folder": {"rgb": "rgb", "depth": "depth", "scale": None, "invalid": [0.0], "step": MILLIMETRE},
}
_MOST = 65535
_THREADS, _BLOCK = 8, 32  # no more than a block of pictures waits in memory

Levels = tuple[NDArray[Any], float]  # uint8 or uint16 (H, W) with 0 = no depth; metres per level


class Packable(NamedTuple):
    """A split that can be packed: its pairs' names and scenes, and what reads image and depth."""

    split: str
    names: list[str]
    groups: list[str]
    read: Callable[[int], tuple[Image, Levels]]


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
    kind, settings = recognise(source, given)
    if out.resolve() == source:
        raise DataError(f"{out} is the source itself; name another file with --out")
    require_free(out, overwrite)
    sizes = EvalTransform(short_side, None)
    try:
        with replacing(out) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            file.attrs["short_side"] = short_side or 0
            file.attrs["origin"] = json.dumps(
                {"kind": kind, "path": str(source), "settings": settings}
            )
            splits = {"nyud2": nyud2_splits, "folder": own_splits, "labelled_mat": mat_splits}
            for packable in splits[kind](source, settings):
                write_split(file.create_group(packable.split), packable, sizes, progress)
            if kind == "nyud2" and "test" in file:
                _add_mask(file["test"], find_data_dir(source, settings["test_csv"]))
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); --out names the place") from error


def recognise(source: Path, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what lies at a path, "nyud2", "labelled_mat" or "folder", and how it is read."""
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
    foreign = sorted(given.keys() - DEFAULTS[kind].keys())
    if foreign:
        raise ConfigError(
            f"{source} is read as {kind!r}, for which {', '.join(foreign)} means nothing; "
            f"known: {', '.join(DEFAULTS[kind])}"
        )
    return kind, {**DEFAULTS[kind], **given}


def to_levels(
    raw: NDArray[Any],
    scale: float | None,
    invalid: Sequence[float],
    name: str,
    step: float = MILLIMETRE,
) -> Levels:
    """Return depth as levels: 8 and 16 bit as they are, anything else rounded to steps in metres.

    Example:
        >>> to_levels(np.array([[0.0, 1.2346]]), None, (0,), "a.npy")
        (array([[   0, 1235]], dtype=uint16), 0.001)
    """
    if raw.dtype in (np.uint8, np.uint16):
        levels = raw.copy()
        for value in invalid:
            levels[raw == value] = 0
        return levels, default_scale(raw.dtype, name) if scale is None else scale
    metres = to_metres(raw, scale, invalid, name)
    check_depth(metres, name)
    steps = np.rint(metres.astype(np.float64) / step)
    if steps.max() > _MOST:
        raise DataError(
            f"{name}: {metres.max():g} m is more than {_MOST} steps of {step:g} m; give a step of "
            f"at least {metres.max() / _MOST:.2g} m (--step)"
        )
    return steps.astype(np.uint16), step


def write_split(group: Any, packable: Packable, sizes: EvalTransform, progress: bool) -> None:
    """Write all pairs of a split in one pass."""
    count, names = len(packable.names), packable.names
    if count == 0:
        raise DataError(f"the {packable.split} split is empty; expected at least one pair")
    title, extents = f"Packing the {packable.split} split", []
    stored: dict[str, Any] = {}
    digest, scale = hashlib.sha256(), 0.0
    pairs = track(_prepared(packable, sizes), title, count, transient=True, disable=not progress)
    for index, (image, levels, unit) in enumerate(pairs):
        if not stored:
            scale = unit
            for key, array in (("image", image), ("depth", levels)):
                stored[key] = _create(group, key, count, array)
        if (levels.dtype, unit) != (stored["depth"].dtype, scale):
            raise DataError(
                f"{names[index]}: depth is {levels.dtype} of {unit:g} m per level, but "
                f"{stored['depth'].dtype} of {scale:g} m in the first pair of the split; store "
                "all alike"
            )
        height, width = levels.shape
        for key, array in (("image", image), ("depth", levels)):
            dataset = stored[key]
            if height > dataset.shape[1] or width > dataset.shape[2]:
                dataset.resize(np.maximum(dataset.shape, (count, *array.shape)))
            dataset[index, :height, :width] = array
            digest.update(array.tobytes())
        extents.append((height, width))
    digest.update(repr((scale, stored["depth"].dtype, extents, names, packable.groups)).encode())
    group.attrs["scale"], group.attrs["content"] = scale, np.bytes_(digest.hexdigest())
    group["size"] = np.array(extents, np.int32)
    for key, texts in (("name", names), ("group", packable.groups)):
        group.create_dataset(key, data=texts, dtype=h5py.string_dtype())


def _create(group: Any, key: str, count: int, first: NDArray[Any]) -> Any:
    """Create a data set of one chunk per sample, which grows when a larger sample comes."""
    return group.create_dataset(
        key,
        (count, *first.shape),
        first.dtype,
        maxshape=(count, None, None, 3)[: first.ndim + 1],
        chunks=(1, *first.shape),
    )


def _prepared(
    packable: Packable, sizes: EvalTransform
) -> Iterator[tuple[Image, NDArray[Any], float]]:
    """Yield image, levels and metres per level of all pairs, resized as at training and checked."""

    def prepare(index: int) -> tuple[Image, NDArray[Any], float]:
        image, (levels, scale) = packable.read(index)
        check_pair(image, to_metres(levels, scale, (0,), ""), packable.names[index])
        return sizes.resize(image, nearest=False), sizes.resize(levels, nearest=True), scale

    count = len(packable.names)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, count, _BLOCK):
            yield from pool.map(prepare, range(start, min(start + _BLOCK, count)))


# ---- what can be packed ----


def _files(split: str, files: FilePairs, levels: Callable[[Path], Levels]) -> Packable:
    def read(index: int) -> tuple[Image, Levels]:
        image, depth = (files.root / path for path in files.pairs[index])
        return read_image(image), levels(depth)

    names, groups = ([get(at) for at in range(len(files))] for get in (files.name, files.group))
    return Packable(split, names, groups, read)


def nyud2_splits(root: Path, settings: dict[str, Any]) -> Iterator[Packable]:
    """Yield the splits of a folder in the csv layout for which there is a list."""

    def levels(path: Path) -> Levels:
        raw = read_raw_depth(path)
        return to_levels(raw, nyud2_scale(raw.dtype, str(path)), (0,), str(path))

    for split in ("train", "test"):
        name = settings[f"{split}_csv"]
        if any((folder / name).is_file() for folder in (root / "data", root)):
            yield _files(split, nyud2_pairs(root, name), levels)


def own_splits(root: Path, settings: dict[str, Any]) -> Iterator[Packable]:
    """Yield the splits of an own folder."""

    def levels(path: Path) -> Levels:
        scale, invalid, step = (settings[name] for name in ("scale", "invalid", "step"))
        return to_levels(read_raw_depth(path), scale, invalid, str(path), step)

    names = ("rgb", "depth", "scale", "invalid")
    for split in split_folders(root) or ["whole"]:
        yield _files(split, folder_pairs(root, split, *(settings[name] for name in names)), levels)


def mat_splits(path: Path, settings: dict[str, Any]) -> Iterator[Packable]:
    """Yield the splits of a labelled set, one MATLAB 7.3 file, which is HDF5.

    ``images`` (N, 3, W, H) uint8 and ``depths`` (N, W, H) in metres are both transposed, as MATLAB
    stores columns first; ``scenes`` (1, N) refers to one string of character codes per picture.
    """
    with _open_mat(path) as file:
        scenes = _scenes(file, path)
        if settings["splits"] is not None:
            rows = _official_split(Path(settings["splits"]), len(scenes))
        else:
            parts = hold_out(scenes, settings["test_fraction"])
            rows = {"train": parts.kept, "test": parts.held_out}
        for split, chosen in rows.items():
            # counted from 1, as in the official split
            names = [f"{path.name} picture {row + 1}" for row in chosen]

            def read(
                index: int, rows: list[int] = chosen, names: list[str] = names
            ) -> tuple[Image, Levels]:
                try:
                    image, metres = (file[key][rows[index]].T for key in ("images", "depths"))
                except OSError as error:
                    raise DataError(f"{names[index]} cannot be read ({error})") from error
                metres = np.ascontiguousarray(metres)
                levels = to_levels(metres, 1.0, (0,), names[index], settings["step"])
                return np.ascontiguousarray(image), levels

            yield Packable(split, names, [scenes[row] for row in chosen], read)


def _open_mat(path: Path) -> Any:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not a readable MATLAB 7.3 file ({error}); fetch it again"
        ) from error
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
        raise DataError(
            f"{path}: scenes are not references to strings ({error}); fetch it again"
        ) from error


def _official_split(path: Path, count: int) -> dict[str, list[int]]:
    """Return the rows (from 0) of ``trainNdxs`` and ``testNdxs``, counted from 1, in a .mat."""
    names = {"train": "trainNdxs", "test": "testNdxs"}
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                content = {name: file[name][()] for name in names.values() if name in file}
        else:
            content = loadmat(path)
    except Exception as error:  # scipy names no common error
        raise DataError(
            f"{path}: not a readable MATLAB file ({error}); give the official splits.mat, or no "
            "--splits"
        ) from error
    missing = [name for name in names.values() if name not in content]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; give the official splits.mat")
    rows = {
        split: (np.asarray(content[name], dtype=np.int64).ravel() - 1).tolist()
        for split, name in names.items()
    }
    chosen = rows["train"] + rows["test"]
    if not all(rows.values()) or min(chosen) < 0 or max(chosen) >= count:
        raise DataError(f"{path}: expected indices from 1 to {count} in both splits")
    if len(set(chosen)) != len(chosen):
        raise DataError(f"{path}: some pictures are listed twice or in both splits")
    return rows


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
