"""A pass over every file of a split before training; what was found whole is remembered."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

from platformdirs import user_cache_path
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import Progress

from depthbal.data.checks import check_depth
from depthbal.data.headers import Size, check_files
from depthbal.data.pairs import NamedSource, PairSource, load_depth, pair_files, pair_size
from depthbal.errors import DataError

_FORMAT = 1  # raised whenever more is checked, so that older records no longer count
_THREADS = 8
_CHUNK = 64
_LONG = 2000  # pairs from which a progress bar is worth showing

Found = tuple[dict[Size, str], list[str]]


def inspect_split(source: NamedSource, split: str, values: bool) -> dict[Size, str]:
    """Check every pair or image of a split, once: a record in the cache spares later work.

    Of pairs in files, the first and last bytes are read: neither may be truncated, and depth must
    have its image's size (see `check_files`). The record is kept under `source.fingerprint()`,
    which follows names, sizes and modification times.

    Args:
        source: the pairs of the split, or images (whose `files` give None for the depth).
        split: what messages call it: "training", "validation", "test".
        values: also read every depth map and check its values (see `check_depth`).

    Returns:
        The sizes (height, width) that depth maps have where they are known without decoding, each
        with a pair that has it.

    Raises:
        DataError: naming the first faulty pair or file, and how many pairs are faulty.
    """
    if len(source) == 0 or not (values or pair_files(source, 0) or pair_size(source, 0)):
        return {}
    record = _record_file(source, values)
    sizes = _read_record(record)
    if sizes is None:
        sizes, faults = _inspect(source, split, values)
        if faults:
            others = "" if len(faults) == 1 else f" (and {len(faults) - 1} more faulty)"
            raise DataError(faults[0] + others)
        _write_record(record, sizes)
    return sizes


def _inspect(source: NamedSource, split: str, values: bool) -> Found:
    """Return the sizes that occur and what is wrong, in the order of the pairs."""
    sizes: dict[Size, str] = {}
    faults: list[str] = []
    for more_sizes, more_faults in _results(source, split, values):
        sizes = more_sizes | sizes
        faults += more_faults
    return sizes, faults


def _results(source: NamedSource, split: str, values: bool) -> Iterator[Found]:
    chunks = [
        range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)
    ]
    # nothing is known about other sources' readers, so only plain files are read by threads
    threads = _THREADS if pair_files(source, 0) else 1
    first_process = not getattr(rank_zero_only, "rank", 0)
    quiet = len(source) < _LONG or not first_process or not Console().is_terminal
    with (
        Progress(transient=True, disable=quiet) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        task = bar.add_task(f"Checking the {split} split", total=len(source))
        try:
            for chunk, found in zip(
                chunks, pool.map(partial(_inspect_chunk, source, values), chunks), strict=True
            ):
                bar.advance(task, len(chunk))
                yield found
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest


def _inspect_chunk(source: NamedSource, values: bool, chunk: range) -> Found:
    sizes: dict[Size, str] = {}
    faults: list[str] = []
    for index in chunk:
        try:
            size = _inspect_pair(source, values, index)
        except DataError as error:
            faults.append(str(error))
            continue
        if size is not None and size not in sizes:
            sizes[size] = source.name(index)
    return sizes, faults


def _inspect_pair(source: NamedSource, values: bool, index: int) -> Size | None:
    files, size = pair_files(source, index), pair_size(source, index)
    if files is not None:
        size = check_files(*files, source.name(index))
    if values:
        check_depth(load_depth(cast(PairSource, source), index), source.name(index))
    return size


def _record_file(source: NamedSource, values: bool) -> Path:
    key = json.dumps([_FORMAT, source.fingerprint(), values])
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return user_cache_path("depthbal") / "checked" / f"{name}.json"


def _read_record(record: Path) -> dict[Size, str] | None:
    """Return the sizes in a record; None where there is none or it is broken."""
    try:
        sizes = json.loads(record.read_text(encoding="utf-8"))["sizes"]
        return {(int(height), int(width)): str(name) for height, width, name in sizes}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(record: Path, sizes: dict[Size, str]) -> None:
    """Keep a record, in one atomic step; a cache that cannot be written costs time only."""
    partial_file = record.with_name(f"{record.stem}.{os.getpid()}.partial")
    content = {"sizes": [[*size, name] for size, name in sizes.items()]}
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        partial_file.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial_file, record)
    except OSError:
        with suppress(OSError):
            partial_file.unlink()
