"""How far a training is: a line per epoch, in a terminal below them a bar with the time left."""

import math
import time
from typing import Any

import pytorch_lightning as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depthbal.training.task import Task


class EpochLines(pl.Callback):
    """Print a line per epoch; with ``bar`` show one of all epochs, and one of the test."""

    def __init__(self, bar: bool) -> None:
        self._wanted = bar
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._show("Training", trainer, trainer.estimated_stepping_batches, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move the bar to the step."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print loss, validation and time."""
        assert isinstance(pl_module, Task)
        values = trainer.callback_metrics  # in every process: it is their mean
        if not trainer.is_global_zero:
            return
        shown = {"train/loss_epoch": "loss", pl_module.selection_metric: pl_module.selection_title}
        parts = [f"{name} {values[key].item():.3f}" for key, name in shown.items() if key in values]
        seconds = time.monotonic() - self._started
        of = f"/{most}" if (most := trainer.max_epochs or -1) > 0 else ""  # max_steps may end it
        epoch = f"epoch {trainer.current_epoch + 1}{of}"
        print(", ".join([epoch, *parts, f"{seconds:.0f} s"]), flush=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a bar of the test's batches."""
        self._show("Evaluating", trainer, sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        """Move the bar by a batch."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def _show(self, title: str, trainer: pl.Trainer, total: float, done: int = 0) -> None:
        if not (self._wanted and trainer.is_global_zero):
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        left = TimeRemainingColumn(), TextColumn("left")
        # the mean of a long time: validation must not look like a standstill
        self._bar = Progress(*columns, *left, transient=True, speed_estimate_period=600)
        self._bar.add_task(title, total=total if math.isfinite(total) else None, completed=done)
        self._bar.start()

    def _hide(self, *_: Any, **__: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    on_train_end = on_test_end = on_exception = _hide
