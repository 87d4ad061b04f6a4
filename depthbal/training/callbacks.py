"""The callbacks that every training gets."""

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar

from depthbal.priors.files import write_json
from depthbal.training.finite_loss import FiniteLoss
from depthbal.training.random_states import RandomStates
from depthbal.training.runs import RunFolder
from depthbal.training.task import DepthTask
from depthbal.training.validation import SELECTION_METRIC


def run_callbacks(run: RunFolder, with_bar: bool = True) -> list[pl.Callback]:
    """Return the callbacks of a training that writes into ``run``.

    Args:
        run: The run folder.
        with_bar: Add a progress bar, where somebody is looking.
    """
    callbacks: list[pl.Callback] = [
        PriorFiles(run),
        RandomStates(),
        FiniteLoss(),
        LearningRateMonitor(),
        save_last(run),
        save_best(run),
    ]
    if not show_progress():
        callbacks.append(EpochLines())
    elif with_bar:
        callbacks.append(RichProgressBar())
    return callbacks


def show_progress() -> bool:
    """Whether a moving progress bar makes sense: not in a log file."""
    return sys.stderr.isatty() and sys.stdout.isatty()


def save_last(run: RunFolder) -> ModelCheckpoint:
    """Return the callback that replaces last.ckpt after every epoch."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def save_best(run: RunFolder) -> ModelCheckpoint:
    """Return the callback that keeps the epoch with the best validation in best.ckpt."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename="best",
        monitor=SELECTION_METRIC,
        mode="min",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


class PriorFiles(pl.Callback):
    """Write the training histogram and the loss's prior into the run folder.

    Args:
        run: The run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write once, from the first process; a resumed run has the files already."""
        if not trainer.is_global_zero or not isinstance(pl_module, DepthTask):
            return
        if pl_module.histogram is not None:
            pl_module.histogram.save(self.run.histogram)
        prior = getattr(pl_module.criterion, "prior", None)
        if prior is not None and hasattr(prior, "to_dict"):
            write_json(self.run.prior, prior.to_dict())


class EpochLines(pl.Callback):
    """Print one line per epoch, for logs and pipes where a progress bar would be noise."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print loss, validation and time."""
        if not trainer.is_global_zero:
            return
        shown = {"train/loss_epoch": "loss", SELECTION_METRIC: "validation RMSE over bins"}
        values = trainer.callback_metrics
        parts = [
            f"{label} {float(values[key]):.3f}" for key, label in shown.items() if key in values
        ]
        seconds = time.monotonic() - self._started
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(", ".join([epoch, *parts, f"{seconds:.0f} s"]), flush=True)
