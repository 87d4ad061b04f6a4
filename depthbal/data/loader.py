"""Which samples an epoch visits, in which order, on which rank, and what fetches them."""

import math
from collections.abc import Iterator, Sized
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, DistributedSampler

from depthbal.errors import DataError

PADDING = -1
"""The index of a sample that counts nowhere."""

Batch = TypeVar("Batch")


class _Ranked(DistributedSampler[Any]):
    """A sampler of one rank of those that are running; without a process group, of one."""

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        running = distributed.is_available() and distributed.is_initialized()
        if num_replicas is None:
            num_replicas = distributed.get_world_size() if running else 1
        if rank is None:
            rank = distributed.get_rank() if running else 0
        super().__init__(dataset, num_replicas, rank, False, seed)  # type: ignore[arg-type]

    def generator(self) -> torch.Generator:
        """Return random numbers of (seed, epoch)."""
        # The sum seed + epoch of the base class would make epoch 1 of seed 0 repeat epoch 0 of
        # seed 1; a large odd factor keeps the streams of neighbouring seeds apart.
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)


class EpochSampler(_Ranked):
    """Shuffle by (seed, epoch) and yield ``(epoch, index)``, so that workers know the epoch.

    Lightning leaves a `DistributedSampler` in place and calls its ``set_epoch`` at the start of
    every epoch; because order and augmentation depend on nothing but (seed, epoch, index), a run
    resumed at epoch k sees what the uninterrupted run saw. With several ranks, the order is padded
    with its own beginning to equal lengths.

    Args:
        dataset: anything with a length.
        num_replicas: number of ranks; None asks `torch.distributed`.
        rank: this rank; None asks `torch.distributed`.
        seed: of the shuffling.

    Example:
        >>> sampler = EpochSampler(range(3))
        >>> sampler.set_epoch(7)
        >>> sorted(sampler)
        [(7, 0), (7, 1), (7, 2)]
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        size = len(self.dataset)  # type: ignore[arg-type]
        order = torch.randperm(size, generator=self.generator()).tolist()
        padded = (order * math.ceil(self.total_size / max(size, 1)))[: self.total_size]
        return iter([(self.epoch, index) for index in padded[self.rank :: self.num_replicas]])


class WeightedSampler(EpochSampler):
    """Draw rows with replacement in proportion to their weights, by (seed, epoch) alone."""

    def __init__(self, weights: Tensor, samples: int, seed: int = 0) -> None:
        super().__init__(range(samples), seed=seed)
        self.weights = weights

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this rank's (draw, row): a row that is drawn twice is changed differently."""
        drawn = torch.multinomial(self.weights, self.total_size, True, generator=self.generator())
        numbered = enumerate(drawn.tolist(), start=self.epoch * self.total_size)
        return iter(list(numbered)[self.rank :: self.num_replicas])


class ShardSampler(_Ranked):
    """Visit every sample exactly once over all ranks, in order, with equally many per rank.

    The last round is filled up with `PADDING`; Lightning's own sampler would count samples twice.
    """

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.dataset)))  # type: ignore[arg-type]
        order += [PADDING] * (self.total_size - len(order))
        return iter(order[self.rank :: self.num_replicas])


class LateLoader(DataLoader[Batch]):
    """A loader that fetches nothing before its first batch is asked for.

    Lightning creates the first iterator before it tells the sampler the epoch of a resumed run;
    worker processes would by then prefetch samples of another. Besides, a `DataError` of a worker
    process arrives with its own message instead of a printed traceback.
    """

    def __iter__(self) -> Any:
        """Yield the batches of the sampler's epoch at the time of the first one."""
        try:
            yield from super().__iter__()
        except DataError as error:  # PyTorch wraps a traceback around what the worker said
            mark = f"{DataError.__module__}.{DataError.__qualname__}: "
            raise DataError(str(error).rpartition(mark)[2].strip()) from error


def single_threaded(worker: int) -> None:
    """Keep OpenCV in a loader process to one thread; the processes are the parallelism."""
    cv2.setNumThreads(0)
