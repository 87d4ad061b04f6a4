"""What is written for each pair: resized as at training, and checked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import Progress

from depthbal.data.checks import check_pair
from depthbal.data.headers import Size
from depthbal.data.images import to_metres
from depthbal.data.packed.sources import Packable
from depthbal.data.pairs import Image
from depthbal.data.transforms import EvalTransform
from depthbal.errors import DataError

_THREADS = 8
_BLOCK = 32

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """What the packed split will hold: enough to allocate it."""

    names: list[str]
    groups: list[str]
    sizes: NDArray[np.int32]
    dtype: np.dtype[Any]
    scale: float

    @property
    def full_size(self) -> Size:
        """The height and width that hold every pair."""
        height, width = self.sizes.max(axis=0).tolist()
        return height, width

    @property
    def bytes(self) -> int:
        """What the samples take on disk."""
        height, width = self.full_size
        return len(self.names) * height * width * (3 + self.dtype.itemsize)


def plan_split(source: Packable, split: str, short_side: int | None, progress: bool) -> Plan:
    """Look at all pairs' headers: sizes after resizing, names, and how depth is stored.

    Raises:
        DataError: an empty split, or the first file that is missing, damaged or of a wrong size.
    """
    count = len(source)
    if count == 0:
        raise DataError(f"the {split} split is empty; expected at least one pair")
    resized = _resized_sizes(EvalTransform(short_side, None))
    title = f"Checking the {split} split"
    sizes = [resized(size) for size in in_threads(source.size, range(count), title, progress)]
    first = source.depth(0)
    return Plan(
        [source.name(index) for index in range(count)],
        [source.group(index) for index in range(count)],
        np.asarray(sizes, dtype=np.int32),
        first.levels.dtype,
        first.scale,
    )


def prepare(
    source: Packable, plan: Plan, short_side: int | None, index: int
) -> tuple[Image, NDArray[Any]]:
    """Return the image and the depth levels of one pair as they are written.

    Raises:
        DataError: unreadable or implausible content, or depth stored unlike the first pair's.
    """
    name = plan.names[index]
    image, depth = source.image(index), source.depth(index)
    if depth.levels.dtype != plan.dtype or depth.scale != plan.scale:
        raise DataError(
            f"{name}: depth is {depth.levels.dtype} of {depth.scale:g} m per level, but "
            f"{plan.dtype} of {plan.scale:g} m in the first pair of the split; store all alike"
        )
    check_pair(image, to_metres(depth.levels, depth.scale, (0,), name), name)
    sizes = EvalTransform(short_side, None)
    levels = np.ascontiguousarray(sizes.resize(depth.levels, nearest=True))
    if levels.shape != tuple(plan.sizes[index]):
        raise DataError(f"{name}: changed its size while it was packed; pack it again")
    return np.ascontiguousarray(sizes.resize(image, nearest=False)), levels


def in_threads(
    function: Callable[[int], Result], indices: Sequence[int], title: str, progress: bool
) -> Iterator[Result]:
    """Yield a function's results in order, computed by threads, under a progress bar."""
    quiet = not (progress and Console().is_terminal) or bool(getattr(rank_zero_only, "rank", 0))
    with Progress(transient=True, disable=quiet) as bar, ThreadPoolExecutor(_THREADS) as pool:
        task = bar.add_task(title, total=len(indices))
        for block in _blocks(indices):
            # one block at a time, so that no more than it waits in memory
            yield from pool.map(function, block)
            bar.advance(task, len(block))


def _blocks(indices: Sequence[int]) -> Iterable[Sequence[int]]:
    return (indices[start : start + _BLOCK] for start in range(0, len(indices), _BLOCK))


def _resized_sizes(transform: EvalTransform) -> Callable[[Size], Size]:
    known: dict[Size, Size] = {}

    def resized(size: Size) -> Size:
        if size not in known:
            height, width = transform.resize(np.empty(size, np.uint8), nearest=True).shape
            known[size] = height, width
        return known[size]

    return resized
