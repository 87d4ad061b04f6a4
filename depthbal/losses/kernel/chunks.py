"""Labels in parts, so that temporaries are small."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

# On a CPU the temporaries of so many labels stay in the cache.
CACHE_LABELS = 2**15
# Elsewhere launches set the time; a temporary of so many float32 takes 16 MiB.
DEVICE_LABELS = 2**22


def chunks(rows: int, first: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Return the same rows of several tensors at a time; None stays None.

    Example:
        >>> import torch
        >>> [part.tolist() for part, _ in chunks(2, torch.arange(3), None)]
        [[0, 1], [2]]
    """
    for start in range(0, first.shape[0], rows):
        part = slice(start, start + rows)
        yield first[part], *(other if other is None else other[part] for other in others)
