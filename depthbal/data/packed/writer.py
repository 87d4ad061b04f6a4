"""Writing a packed file: allocated at once, filled in any number of runs, verified, then sealed."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from numpy.typing import NDArray

from depthbal.data.packed.format import (
    FORMAT,
    VERSION,
    check_format,
    open_packed,
    read_histograms,
)
from depthbal.data.packed.origin import Origin
from depthbal.data.packed.pairs import PackedPairs, checksum, packed_splits
from depthbal.data.packed.prepare import Plan, in_threads, prepare
from depthbal.data.packed.sources import Packable
from depthbal.data.pairs import Image
from depthbal.errors import DataError
from depthbal.files import replacing

_HISTOGRAMS = 1 << 18  # bytes
_FLUSH = 32
_DIGEST = 64


def create_packed(
    path: Path,
    origin: Origin,
    fingerprints: dict[str, str],
    short_side: int | None,
    plans: dict[str, Plan],
    balanced_mask: NDArray[Any] | None = None,
) -> None:
    """Allocate an empty packed file in one atomic step.

    Raises:
        DataError: the disk has too little space.
    """
    needed = sum(plan.bytes for plan in plans.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"{path.parent}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free; free "
            "disk space, or name another place with --out"
        )
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs["complete"] = np.uint8(0)
        file.attrs["short_side"] = short_side or 0
        file.attrs["origin"] = origin.to_json()
        file.attrs["fingerprints"] = json.dumps(fingerprints)
        file["histograms"] = np.zeros(_HISTOGRAMS, np.uint8)
        for split, plan in plans.items():
            _create_split(file.create_group(split), plan)
        if balanced_mask is not None:
            file["test/balanced_mask"] = balanced_mask.astype(np.uint8)
            file["test"].attrs["mask_digest"] = hashlib.sha256(balanced_mask.tobytes()).hexdigest()


def fill(path: Path, split: str, source: Packable, plan: Plan, progress: bool = True) -> None:
    """Write all samples of a split that are not in the file yet.

    Raises:
        DataError: see `prepare`; what was written stays and is not written again.
    """
    with _open_to_write(path) as file:
        group = file[split]
        short_side = int(file.attrs["short_side"]) or None
        left = np.flatnonzero(group["done"][()] == 0).tolist()
        make = partial(prepare, source, plan, short_side)
        pending: list[int] = []
        pairs = in_threads(make, left, f"Packing the {split} split", progress)
        for index, (image, levels) in zip(left, pairs, strict=True):
            _write_sample(group, plan, index, image, levels)
            pending.append(index)
            if len(pending) == _FLUSH:
                _mark_done(file, group, pending)
        _mark_done(file, group, pending)


def faulty_samples(path: Path, split: str, progress: bool = True) -> list[int]:
    """Read a split back and return the samples whose bytes are not those that were written.

    They are marked, so that `fill` writes them again.
    """
    pairs = PackedPairs(path, split, complete=False)
    with open_packed(path, complete=False) as file:
        expected = file[split]["checksum"][()].tolist()

    def is_faulty(index: int) -> bool:
        return bool(checksum(*pairs.stored(index)) != expected[index])

    found = in_threads(is_faulty, range(len(pairs)), f"Verifying the {split} split", progress)
    faulty = [index for index, wrong in enumerate(found) if wrong]
    if faulty:
        with _open_to_write(path) as file:
            file[split]["done"][faulty] = 0
    return faulty


def seal(path: Path) -> None:
    """Note the digest of every split's content and mark the file as complete."""
    with _open_to_write(path) as file:
        for split in packed_splits(file):
            digest = np.bytes_(_content(file[split]))
            file[split].attrs.modify("content", digest)
        file.flush()
        file.attrs.modify("complete", np.uint8(1))


def add_histogram(path: Path, fingerprint: str, described: dict[str, Any]) -> None:
    """Keep a histogram in the file; one that no longer fits is left out, it costs time only."""
    with _open_to_write(path) as file:
        text = json.dumps({**read_histograms(file), fingerprint: described}).encode()
        if len(text) <= _HISTOGRAMS:
            file["histograms"][()] = np.frombuffer(text.ljust(_HISTOGRAMS, b"\0"), np.uint8)


@contextmanager
def _open_to_write(path: Path) -> Iterator[Any]:
    try:
        file = h5py.File(path, "r+", libver="earliest")
    except BlockingIOError as error:
        raise DataError(f"{path} is being packed by another process; wait for it") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened for writing ({error}); remove it to start anew"
        ) from error
    with file:
        check_format(file, path)
        yield file


def _create_split(group: Any, plan: Plan) -> None:
    count = len(plan.names)
    group.attrs["scale"] = plan.scale
    group.attrs["content"] = np.bytes_("-" * _DIGEST)  # of fixed length: changed in place
    _allocate(group, "image", (count, *plan.full_size, 3), np.dtype(np.uint8))
    _allocate(group, "depth", (count, *plan.full_size), plan.dtype)
    group["size"] = plan.sizes
    for name, texts in (("name", plan.names), ("group", plan.groups)):
        group.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    group["checksum"] = np.zeros(count, np.uint32)
    group["done"] = np.zeros(count, np.uint8)


def _allocate(group: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Reserve a data set of one chunk per sample at once, so that filling it moves nothing."""
    layout = h5p.create(h5p.DATASET_CREATE)
    layout.set_chunk((1, *shape[1:]))
    layout.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5d.FILL_TIME_NEVER)
    space = h5s.create_simple(shape)
    h5d.create(group.id, name.encode(), h5t.py_create(dtype), space, layout)


def _write_sample(group: Any, plan: Plan, index: int, image: Image, levels: NDArray[Any]) -> None:
    """Write one chunk of each data set, past HDF5's cache."""
    height, width = levels.shape
    for name, array in (("image", image), ("depth", levels)):
        if (height, width) != plan.full_size:
            padded = np.zeros((*plan.full_size, *array.shape[2:]), array.dtype)
            padded[:height, :width] = array
            array = padded
        group[name].id.write_direct_chunk((index,) + (0,) * array.ndim, array)
    group["checksum"][index] = checksum(image, levels)


def _mark_done(file: Any, group: Any, pending: list[int]) -> None:
    file.flush()  # a mark must not reach the file before its sample
    if pending:
        group["done"][pending] = 1
        file.flush()
        pending.clear()


def _content(group: Any) -> str:
    digest = hashlib.sha256(f"{group.attrs['scale']!r} {group['depth'].dtype}".encode())
    for name in ("checksum", "size"):
        digest.update(np.ascontiguousarray(group[name][()]).tobytes())
    for name in ("name", "group"):
        digest.update("\0".join(group[name].asstr()[()]).encode())
    return digest.hexdigest()
