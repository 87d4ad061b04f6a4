"""The user's cache directory: it holds what can be made again, and may be deleted at any time."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader

from depthbal.data.loader import single_threaded
from depthbal.io import replacing

_CHUNK = 64  # pictures a process draws at a time; no more are drawn sooner than processes start

Kept = TypeVar("Kept")
Layout: TypeAlias = dict[str, tuple[tuple[int, ...], type[np.generic]]]
Arrays: TypeAlias = dict[str, NDArray[Any]]


def cache_file(*parts: str) -> Path:
    """Return the place of a file in the cache; its name must say all that its content depends on.

    Example:
        >>> cache_file("histograms", "0f3a.json").parts[-3:]
        ('depthbal', 'histograms', '0f3a.json')
    """
    return user_cache_path("depthbal").joinpath(*parts)


def cached(
    file: Path | None,
    load: Callable[[Path], Kept],
    make: Callable[[], Kept],
    save: Callable[[Path, Kept], Any],
) -> Kept:
    """Return what a file holds; where it is missing, damaged or foreign, make it and keep it.

    A cache that cannot be written (read-only home, full disk) costs time only and is no error.
    `load` says with a ValueError that the file is not what is wanted; without a file, nothing is
    kept.
    """
    if file is None:
        return make()
    with suppress(OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return load(file)
    made = make()
    with suppress(OSError), replacing(file) as temporary:
        save(temporary, made)
    return made


def drawn_arrays(
    draw: Callable[[int], tuple[NDArray[Any], ...]],
    count: int,
    layout: Layout,
    file: Path | None,
    *,
    title: str = "Drawing",
    workers: int = 0,
    progress: bool = True,
) -> Arrays:
    """Return pictures 0 to `count` as arrays, from a cached npz file or freshly drawn.

    Args:
        draw: draws a picture, in any process.
        count: number of pictures.
        layout: name, shape and type of every array that a picture consists of, in its order.
        file: where the arrays are kept (every zip member carries a checksum); None keeps nothing.
        title: of the progress bar.
        workers: processes that draw; 0 draws in this one.
        progress: show a progress bar, where there is a terminal.
    """

    def load(file: Path) -> Arrays:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in layout}
        for name, (shape, dtype) in layout.items():
            if arrays[name].shape != (count, *shape) or arrays[name].dtype != dtype:
                raise ValueError(f"{file} holds other arrays")
        return arrays

    def make() -> Arrays:
        arrays = {name: np.empty((count, *shape), dtype) for name, (shape, dtype) in layout.items()}
        # chunks, because handing over a small picture costs more than drawing it
        loader: Any = DataLoader(
            range(count),  # type: ignore[arg-type]
            batch_size=_CHUNK,
            num_workers=workers if count > _CHUNK else 0,
            collate_fn=partial(_draw_chunk, draw),
            worker_init_fn=single_threaded,
        )
        with Progress(transient=True, disable=not (progress and Console().is_terminal)) as bar:
            for number, parts in enumerate(bar.track(loader, description=title)):
                for array, part in zip(arrays.values(), parts, strict=True):
                    array[number * _CHUNK :][: len(part)] = part
        return arrays

    return cached(file, load, make, lambda path, made: np.savez(path, allow_pickle=False, **made))


def _draw_chunk(
    draw: Callable[[int], tuple[NDArray[Any], ...]], numbers: list[int]
) -> list[NDArray[Any]]:
    return [np.stack(parts) for parts in zip(*map(draw, numbers), strict=True)]
