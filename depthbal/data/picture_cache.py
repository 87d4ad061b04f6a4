"""Pictures drawn once: over several processes, kept in the user's cache directory."""

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset

from depthbal.data.loader import single_threaded
from depthbal.files import replacing

_CHUNK = 64  # pictures a process draws at a time; no more are drawn sooner than processes start

Layout: TypeAlias = dict[str, tuple[tuple[int, ...], type[np.generic]]]
Arrays: TypeAlias = dict[str, NDArray[Any]]


def drawn_arrays(
    pictures: "Dataset[tuple[NDArray[Any], ...]]",
    layout: Layout,
    file: Path | None,
    *,
    title: str = "Drawing",
    workers: int = 0,
    progress: bool = True,
) -> Arrays:
    """Return all pictures as arrays, from a cached file or freshly drawn.

    A file that is missing, truncated or damaged (every zip member carries a checksum) is drawn
    again; one that cannot be written costs time only and is no error.

    Args:
        pictures: draws a picture when asked for it, so that a DataLoader spreads the work.
        layout: name, shape and type of every array that a picture consists of, in its order.
        file: where the arrays are kept; its name must identify them. None keeps nothing.
        title: of the progress bar.
        workers: processes that draw; 0 draws in this one.
        progress: show a progress bar, where there is a terminal.
    """
    arrays = None if file is None else _read(file, len(pictures), layout)  # type: ignore[arg-type]
    if arrays is None:
        arrays = _draw(pictures, layout, title, workers, progress)
        if file is not None:
            with suppress(OSError), replacing(file) as temporary:
                np.savez(temporary, allow_pickle=False, **arrays)
    return arrays


def _draw(pictures: Any, layout: Layout, title: str, workers: int, progress: bool) -> Arrays:
    count = len(pictures)
    arrays = {name: np.empty((count, *shape), dtype) for name, (shape, dtype) in layout.items()}
    # chunks, because handing over a small picture costs more than drawing it
    loader: Any = DataLoader(
        pictures,
        batch_size=_CHUNK,
        num_workers=workers if count > _CHUNK else 0,
        collate_fn=_stack,
        worker_init_fn=single_threaded,
    )
    with Progress(transient=True, disable=not (progress and Console().is_terminal)) as bar:
        task = bar.add_task(title, total=count)
        for number, parts in enumerate(loader):
            for array, part in zip(arrays.values(), parts, strict=True):
                array[number * _CHUNK :][: len(part)] = part
            bar.advance(task, len(parts[0]))
    return arrays


def _stack(pictures: list[tuple[NDArray[Any], ...]]) -> list[NDArray[Any]]:
    return [np.stack(parts) for parts in zip(*pictures, strict=True)]


def _read(file: Path, count: int, layout: Layout) -> Arrays | None:
    """Return the arrays in a file; None where it is missing, damaged or not ours."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in layout}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    for name, (shape, dtype) in layout.items():
        if arrays[name].shape != (count, *shape) or arrays[name].dtype != dtype:
            return None
    return arrays
