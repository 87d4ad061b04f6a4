"""The callbacks that every training gets."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar

from depthbal.training.resuming import FiniteLoss, RandomStates
from depthbal.training.runs import CheckpointName, RunFolder, save_prior
from depthbal.training.task import Task


def run_callbacks(run: RunFolder, task: type[Task], with_bar: bool) -> list[pl.Callback]:
    """Return the callbacks of a training: with a progress bar, or one line per epoch."""
    callbacks: list[pl.Callback] = [
        SavePrior(run),
        RandomStates(),
        FiniteLoss(),
        LearningRateMonitor(),
        SaveCheckpoint(run, "best", task.selection_metric),
        SaveCheckpoint(run, "last"),  # after "best", whose score it carries
    ]
    callbacks.append(RichProgressBar() if with_bar else EpochLines())
    return callbacks


class SaveCheckpoint(ModelCheckpoint):
    """Keep one checkpoint of a name, replaced after every epoch, or those that lower a metric."""

    def __init__(self, run: RunFolder, name: CheckpointName, monitor: str | None = None) -> None:
        super().__init__(
            dirpath=run.path / "checkpoints",
            filename=name,
            monitor=monitor,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless there is no validation split to choose by."""
        if self.monitor is None or self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score also where the run folder has moved since."""
        path = self.format_checkpoint_name({})
        scores = list(state_dict["best_k_models"].values())
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": path,
            "kth_best_model_path": path if scores else "",
            "best_k_models": {path: scores[0]} if scores else {},
        }
        super().load_state_dict({**state_dict, **moved})


class SavePrior(pl.Callback):
    """Write the prior when training starts, from the first process."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it once: a resumed training keeps it."""
        assert isinstance(pl_module, Task)
        if trainer.is_global_zero and not pl_module.starts_from_checkpoint:
            save_prior(self.run, pl_module)


class EpochLines(pl.Callback):
    """Print one line per epoch, for logs and pipes where a progress bar would be noise."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print loss, validation and time."""
        assert isinstance(pl_module, Task)
        values = trainer.callback_metrics  # in every process: it is their mean
        if not trainer.is_global_zero:
            return
        shown = {"train/loss_epoch": "loss", pl_module.selection_metric: pl_module.selection_title}
        parts = [f"{name} {values[key].item():.3f}" for key, name in shown.items() if key in values]
        seconds = time.monotonic() - self._started
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(", ".join([epoch, *parts, f"{seconds:.0f} s"]), flush=True)
