"""Packing a source into one file: what ``depthbal prepare`` does."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.io import loadmat

from depthbal.data.dataset import check_pair
from depthbal.data.folder import FolderDataModule
from depthbal.data.images import MILLIMETRE, Depth, Image, as_scale, measured, read_array
from depthbal.data.nyud2 import BALANCED_MASK, NYUD2DataModule
from depthbal.data.packed import FORMAT, VERSION, RootDataModule
from depthbal.data.pairs import FilePairs, PairSource
from depthbal.data.splits import hold_out
from depthbal.data.transforms import EvalTransform
from depthbal.errors import ConfigError, DataError
from depthbal.io import replacing, require_free, show_progress

_THREADS, _BLOCK = 8, 32  # no more than a block of pictures waits in memory

Splits = Iterator[tuple[str, PairSource]]


def pack(
    source: Path, out: Path, short_side: int | None = 240, *, overwrite: bool = False, **given: Any
) -> None:
    """Pack a folder in the csv layout, an own folder or ``nyu_depth_v2_labeled.mat``.

    Depth of 8 and 16 bit keeps its levels, anything else is rounded to a given `step` in metres.
    The other settings are those of reading.
    """
    source, out = source.expanduser().resolve(), out.expanduser()
    if out.resolve() == source:
        raise DataError(f"{out} is the source itself; name another file with --out")
    require_free(out, overwrite)
    step, lowest = given.pop("step", MILLIMETRE), given.pop("lowest", 0.0)
    given |= {"scale": as_scale(given["scale"])} if "scale" in given else {}
    kind, settings, splits = _found(source, given)
    origin = {"kind": kind, "path": str(source), "settings": settings}
    try:
        with replacing(out) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            file.attrs["short_side"], file.attrs["origin"] = short_side or 0, json.dumps(origin)
            for split, pairs in splits:
                group = file.create_group(split)
                _write(group, pairs, step, lowest, EvalTransform(short_side, None, none=pairs.none))
                mask = pairs.root / BALANCED_MASK if isinstance(pairs, FilePairs) else source
                if kind == "nyud2" and split == "test" and mask.is_file():
                    group["balanced_mask"] = (read_array(mask) != 0).astype(np.uint8)
    except OSError as error:
        raise DataError(f"{source} cannot be packed into {out}, set by --out: {error}") from error


def _found(source: Path, given: dict[str, Any]) -> tuple[str, dict[str, Any], Splits]:
    """Return what lies at a path, all settings of reading it, and its splits read with them."""
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder or nyu_depth_v2_labeled.mat")
    try:
        if source.is_file():
            return "labelled_mat", given, _labelled_mat(source, **given)
        lists = {name: given[name] for name in ("train_csv", "test_csv") if name in given}
        module: RootDataModule = NYUD2DataModule(source, **lists)
        kind = NYUD2DataModule if module.file_splits() else FolderDataModule
        module = kind(source, **given)
    except TypeError as error:
        raise ConfigError(f"{source} is not read with these settings: {error}") from error
    files = ((split, module.files(split)) for split in module.file_splits())
    return module.kind, module.reading, files


def _write(group: Any, pairs: PairSource, step: float, lowest: float, sizes: EvalTransform) -> None:
    """Write all pairs of a split in one pass, their depth exactly or rounded to steps.

    Where 0 is a label, its level is above those of labels down to the lowest, and of none.
    """
    dtype, scale, exact = np.dtype(np.uint16), step, False
    if pairs.levels is not None and pairs.levels[0] in (np.uint8, np.uint16):
        (dtype, scale), exact = pairs.levels, True
    zero = round(max(-lowest, 0) / scale) + 1 if np.isnan(pairs.none) else 0
    dtype = np.dtype(np.uint16) if pairs.beyond or zero else dtype
    most = code = int(np.iinfo(dtype).max)
    if pairs.beyond:
        group.attrs["beyond"], most = code, code - 1
    if zero:
        group.attrs["zero"] = zero

    def prepare(index: int) -> tuple[Image, NDArray[Any]]:
        image, metres = pairs.load(index)
        name = pairs.name(index)
        check_pair(image, metres, name)
        metres = sizes.resize(metres, nearest=True)
        beyond = (metres == np.inf) & pairs.beyond
        known = measured(metres, pairs.none) & (metres >= lowest)
        metres = np.where(known, metres, np.float32(0))
        levels = np.rint(metres.astype(np.float64) / scale)
        same = not exact or np.array_equal((levels * scale).astype(np.float32), metres)
        levels = np.where(known, levels + zero, 0)
        if not 0 <= levels.max() <= most or not same:
            raise DataError(
                f"{name}: depth of up to {metres.max():g} m does not go into {most} whole steps of "
                f"{scale:g} m, as the split's first pair does; store all alike, give --step, or "
                "name what is no depth with --invalid"
            )
        levels[beyond] = code
        return sizes.resize(image, nearest=False), levels.astype(dtype)

    count = len(pairs)
    indices = track(range(count), f"Packing {group.name}", disable=not show_progress())
    stored: dict[str, Any] = {}
    extents, digest = [], hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for index in indices:
            if index % _BLOCK == 0:
                block = pool.map(prepare, range(index, min(index + _BLOCK, count)))
            image, levels = next(block)
            height, width = levels.shape
            extents.append((height, width))
            for key, array in (("image", image), ("depth", levels)):
                if key not in stored:  # a chunk per sample, which grows when a larger one comes
                    shape, most_of = (count, *array.shape), (count, None, None, 3)[: array.ndim + 1]
                    stored[key] = group.create_dataset(
                        key, shape, array.dtype, maxshape=most_of, chunks=(1, *array.shape)
                    )
                dataset = stored[key]
                dataset.resize(np.maximum(dataset.shape, (count, *array.shape)))
                dataset[index, :height, :width] = array
                digest.update(array.tobytes())
    keys = ("name", "group", "image_path")
    texts = {key: [getattr(pairs, key)(index) for index in range(count)] for key in keys}
    about = (scale, dtype, extents, texts["name"], texts["group"], *[zero] * (zero > 0))
    digest.update(repr(about + (code,) * pairs.beyond).encode())
    group.attrs["scale"], group.attrs["content"] = scale, np.bytes_(digest.hexdigest())
    group["size"] = np.array(extents, np.int32)
    for key, lines in texts.items():
        group.create_dataset(key, data=lines, dtype=h5py.string_dtype())


def _labelled_mat(
    path: Path, splits: str | None = None, test_fraction: float = 654 / 1449
) -> Splits:
    try:
        file = h5py.File(path, "r")
        scenes = [""] * min(len(file["images"]), len(file["depths"]))
        if "scenes" in file:
            cells = [file[one][()].ravel() for one in file["scenes"][()].ravel()]
            scenes = ["".join(map(chr, codes)) for codes in cells]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not nyu_depth_v2_labeled.mat ({error})") from error
    kept, held_out, _ = hold_out(scenes, test_fraction)
    rows = {"train": kept, "test": held_out}
    if splits is not None:
        rows = _official_split(Path(splits), len(scenes))
    with file:
        for split, chosen in rows.items():
            yield split, LabelledMat(path, file, chosen, scenes)


class LabelledMat(PairSource):
    """Some pictures of the labelled NYU Depth V2, one MATLAB 7.3 file, which is HDF5.

    ``images`` (N, 3, W, H) uint8 and ``depths`` (N, W, H) in metres are both transposed, as MATLAB
    stores columns first; ``scenes`` (1, N) refers to one string of character codes per picture.
    """

    def __init__(self, path: Path, file: Any, rows: list[int], scenes: list[str]) -> None:
        self.file, self.rows = file, rows
        self.names = [f"{path.name} picture {row + 1}" for row in rows]  # as in the official split
        self.groups = [scenes[row] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return the image and the filled-in depth, turned upright."""
        image, depth = (self.file[key][self.rows[index]].T for key in ("images", "depths"))
        return np.ascontiguousarray(image), np.ascontiguousarray(depth, np.float32)


def _official_split(path: Path, count: int) -> dict[str, list[int]]:
    """Return the rows (from 0) of ``trainNdxs`` and ``testNdxs``, counted from 1, in a .mat."""
    try:
        content = loadmat(str(path))
        rows = {
            split: (content[f"{split}Ndxs"].astype(np.int64).ravel() - 1).tolist()
            for split in ("train", "test")
        }
        chosen = rows["train"] + rows["test"]
        if not all(rows.values()) or len({*chosen} & {*range(count)}) < len(chosen):
            raise ValueError(f"expected indices from 1 to {count}, none twice")
    except Exception as error:  # scipy names no common error
        raise DataError(
            f"{path}: not the official splits.mat ({error!r}); give that, or no --splits"
        ) from error
    return rows
