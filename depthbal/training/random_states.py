"""Random states inside checkpoints, because Lightning does not store them."""

import copy
import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_utilities.core.rank_zero import rank_zero_warn


def collect_random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as tensors and plain types."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "python": [version, list(internal), gauss],
        "numpy": numpy_state,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the generators to what `collect_random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = copy.deepcopy(states["numpy"])
    numpy_state["state"]["key"] = numpy_state["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


class RandomStates(pl.Callback):
    """Make dropout and the like continue after a resume exactly as without the interruption.

    The states are taken when an epoch's checkpoint is written, and set again before the first
    batch of the next epoch, in every run: starting a data loader or counting the training depth
    draws random numbers too, and an uninterrupted run does so at other moments than a resumed one.
    The first epoch begins with the states at the callback's creation for the same reason.
    """

    def __init__(self) -> None:
        self._next: dict[str, Any] | None = collect_random_states()
        self._loaded: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Collect the states of all processes."""
        self._next = collect_random_states()
        if not (dist.is_available() and dist.is_initialized()):
            return {"states": [self._next]}
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, self._next)
        return {"states": gathered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states of a checkpoint until training continues."""
        self._loaded = state_dict["states"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose this process's states among those of a checkpoint."""
        if len(self._loaded) == trainer.world_size:
            self._next = self._loaded[trainer.global_rank]
        elif self._loaded:
            rank_zero_warn(
                f"the checkpoint holds the random states of {len(self._loaded)} processes and this "
                f"run has {trainer.world_size}; dropout continues with other random numbers"
            )
        self._loaded = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the states before the first batch of an epoch."""
        if batch_idx == 0 and self._next is not None:
            restore_random_states(self._next)
            self._next = None
