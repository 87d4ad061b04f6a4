"""The data loader of all splits: late, single-threaded per process, with plain errors."""

from typing import Any, TypeVar

import cv2
from torch.utils.data import DataLoader

from depthbal.errors import DataError

Batch = TypeVar("Batch")


class LateLoader(DataLoader[Batch]):
    """A loader that fetches nothing before its first batch is asked for.

    Lightning creates the first iterator before it restores the epoch of a resumed run and tells
    the sampler; worker processes would by then prefetch the samples of another epoch. Besides, a
    `DataError` of a worker process arrives with its own message instead of a printed traceback.
    """

    def __iter__(self) -> Any:
        """Yield the batches of the sampler's epoch at the time of the first one."""
        try:
            yield from super().__iter__()
        except DataError as error:
            raise DataError(original_message(error)) from error


def original_message(error: DataError) -> str:
    """Return what was said in the worker process, without the traceback PyTorch wraps around it."""
    mark = f"{DataError.__module__}.{DataError.__qualname__}: "
    return str(error).rpartition(mark)[2].strip()


def single_threaded(worker: int) -> None:
    """Keep OpenCV in a loader process to one thread; the processes are the parallelism."""
    cv2.setNumThreads(0)
