"""Stop a training that has diverged, before it overwrites a good checkpoint."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from depthbal.errors import DepthbalError


class TrainingError(DepthbalError, RuntimeError):
    """A training cannot go on; its last checkpoint can."""


class FiniteLoss(pl.Callback):
    """Raise a TrainingError when the loss or a parameter is NaN or infinite.

    On a CPU the loss is read at every step. On a GPU reading would stall every step, so a flag on
    the device collects the answers and is read every ``every_n_steps`` steps and before each
    checkpoint.

    Args:
        every_n_steps: Steps between two looks at the device's flag.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._diverged: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note whether this step's loss is finite."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is None:
            return
        bad = ~torch.isfinite(loss.detach()).all()
        self._diverged = bad if self._diverged is None else self._diverged | bad
        if bad.device.type == "cpu" or (batch_idx + 1) % self.every_n_steps == 0:
            self._check(trainer, "loss")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the parameters too, before NaN is called the predictions' fault."""
        self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look once more; checkpoints are written after this hook."""
        self._look(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check(trainer, "loss")
        sums = [parameter.detach().abs().sum() for parameter in pl_module.parameters()]
        self._diverged = ~torch.isfinite(torch.stack(sums).sum())
        self._check(trainer, "network's parameters")

    def _check(self, trainer: pl.Trainer, what: str) -> None:
        if self._diverged is None:
            return
        diverged = bool(self._diverged)
        self._diverged = None
        # every rank takes the same decision, or the others would wait for this one
        if trainer.strategy.reduce_boolean_decision(diverged, all=False):
            raise TrainingError(diverged_message(trainer, f"the {what} became NaN or infinite"))


def diverged_message(trainer: pl.Trainer, reason: str) -> str:
    """Say where training stopped, why, and what can be done."""
    return (
        f"training stopped in epoch {trainer.current_epoch}, at step {trainer.global_step}: "
        f"{reason}. Lower the learning rate (--model.optimizer.lr), clip gradients "
        "(--trainer.gradient_clip_val 1) or train in full precision (--trainer.precision 32-true). "
        "The checkpoint of the last finished epoch is untouched"
    )
