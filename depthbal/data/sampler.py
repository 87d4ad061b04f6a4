"""Which samples an epoch visits, in which order, on which rank."""

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import DistributedSampler

PADDING = -1


def _world(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    running = distributed.is_available() and distributed.is_initialized()
    if num_replicas is None:
        num_replicas = distributed.get_world_size() if running else 1
    if rank is None:
        rank = distributed.get_rank() if running else 0
    if not 0 <= rank < num_replicas:
        raise ValueError(f"rank {rank} does not lie in [0, {num_replicas - 1}]")
    return num_replicas, rank


class EpochSampler(DistributedSampler[Any]):
    """Shuffle by (seed, epoch) and yield ``(epoch, index)``, so that workers know the epoch.

    Lightning leaves a `DistributedSampler` in place and calls its ``set_epoch`` at the start of
    every epoch; because order and augmentation depend on nothing but (seed, epoch, index), a run
    resumed at epoch k sees what the uninterrupted run saw. Without a process group there is one
    rank. With several, the order is padded with its own beginning to equal lengths.

    Args:
        dataset: anything with a length.
        seed: of the shuffling.
        epoch: the epoch to begin with.
        shuffle: False visits the samples in their order.
        num_replicas: number of ranks; None asks `torch.distributed`.
        rank: this rank; None asks `torch.distributed`.

    Example:
        >>> sampler = EpochSampler(range(3), epoch=7, shuffle=False)
        >>> list(sampler)
        [(7, 0), (7, 1), (7, 2)]
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        num_replicas, rank = _world(num_replicas, rank)
        super().__init__(dataset, num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.set_epoch(epoch)

    def _order(self) -> list[int]:
        size = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return list(range(size))
        # The sum seed + epoch of the base class would make epoch 1 of seed 0 repeat epoch 0 of
        # seed 1; a large odd factor keeps the streams of neighbouring seeds apart.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return torch.randperm(size, generator=generator).tolist()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self._order()
        if order:
            order = (order * math.ceil(self.total_size / len(order)))[: self.total_size]
        mine = order[self.rank : self.total_size : self.num_replicas]
        return iter([(self.epoch, index) for index in mine])


class WeightedSampler(EpochSampler):
    """Draw rows with replacement in proportion to their weights, by (seed, epoch) alone."""

    def __init__(self, weights: Tensor, samples: int, seed: int = 0) -> None:
        super().__init__(range(samples), seed=seed)
        self.weights = weights

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this rank's (draw, row): a row that is drawn twice is changed differently."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        drawn = torch.multinomial(self.weights, self.total_size, True, generator=generator)
        numbered = enumerate(drawn.tolist(), start=self.epoch * self.total_size)
        return iter(list(numbered)[self.rank :: self.num_replicas])


class ShardSampler(DistributedSampler[Any]):
    """Visit every sample exactly once over all ranks, in order, with equally many per rank.

    Ranks must take equally many steps, so the last round is filled up with `PADDING`, a sample
    that counts nowhere. (Lightning's own sampler would count real samples twice.)

    Example:
        >>> [list(ShardSampler(range(3), num_replicas=2, rank=rank)) for rank in (0, 1)]
        [[0, 2], [1, -1]]
    """

    def __init__(
        self, dataset: Sized, *, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        num_replicas, rank = _world(num_replicas, rank)
        super().__init__(dataset, num_replicas, rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.dataset)))  # type: ignore[arg-type]
        order += [PADDING] * (self.total_size - len(order))
        return iter(order[self.rank : self.total_size : self.num_replicas])
