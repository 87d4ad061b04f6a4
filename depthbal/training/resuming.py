"""What makes a training stop and go on as if it had not: states, files, and no NaN in either."""

import csv
import os
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from depthbal.errors import CheckpointError, DepthbalError, first_line
from depthbal.io import replacing


class TrainingError(DepthbalError, RuntimeError):
    """A training cannot go on; its last checkpoint can."""


class FiniteLoss(pl.Callback):
    """Raise a TrainingError when the loss or a parameter is NaN or infinite.

    Reading the loss would stall a GPU: there a flag is read every ``every_n_steps`` steps only.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._diverged: Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note whether this step's loss is finite."""
        bad = ~torch.isfinite(outputs["loss"].detach())
        self._diverged = bad if self._diverged is None else self._diverged | bad
        if bad.device.type == "cpu" or (batch_idx + 1) % self.every_n_steps == 0:
            self._check(trainer, "loss")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the parameters too, before NaN is called the predictions' fault."""
        self._check(trainer, "loss")
        sums = [parameter.detach().abs().sum() for parameter in pl_module.parameters()]
        self._diverged = ~torch.isfinite(torch.stack(sums).sum())
        self._check(trainer, "network's parameters")

    on_train_epoch_end = on_validation_start  # checkpoints are written after this hook

    def _check(self, trainer: pl.Trainer, what: str) -> None:
        diverged, self._diverged = bool(self._diverged), None
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


def collect_random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as tensors and plain types."""
    name, key, *position = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(key, dtype=np.int64)), *position),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the generators to what `collect_random_states` returned."""
    name, key, *position = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((name, key.numpy().astype(np.uint32), *position))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


class RandomStates(pl.Callback):
    """Make dropout and the like continue after a resume exactly as without the interruption.

    The states are set before every epoch, in every run: starting a data loader or counting labels
    draws random numbers too, and a resumed run does so at other moments.
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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its target: a copy from another disk may stay half done."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; on any error the previous file stays untouched."""
        target = Path(path)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch turns some system errors into its own
            if _by_ctrl_c(error):
                raise KeyboardInterrupt from error
            raise CheckpointError(
                f"cannot write {target} ({first_line(error)}); the previous checkpoint is "
                "untouched: free disk space and continue the run with --resume"
            ) from error


def _by_ctrl_c(error: BaseException | None) -> bool:
    """Whether an error came of an interruption: torch cannot close a file that is cut off."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class RunLogger(CSVLogger):
    """Lightning's CSV logger that writes to ``RUN/metrics.csv`` and never deletes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(save_dir=path, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the file."""
        if self._experiment is None:
            self._experiment = _ContinuingWriter(log_dir=self.log_dir)
        return cast(ExperimentWriter, self._experiment)


class _ContinuingWriter(ExperimentWriter):
    """Append to an existing file; Lightning's writer would delete it."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys = read_rows(Path(self.metrics_file_path))[0]

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        _write_rows(path, fieldnames, read_rows(path)[1])


def drop_rows_from(path: Path, step: int) -> None:
    """Remove the rows at ``step`` and later: an epoch that was cut off is trained again."""
    if path.is_file():
        columns, rows = read_rows(path)
        _write_rows(path, columns, [row for row in rows if int(row["step"] or 0) < step])


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and rows of learning curves, none where there is no file."""
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        # a kill can leave the last row incomplete
        rows = [row for row in reader if None not in row.values()]
        return list(reader.fieldnames or []), rows


def _write_rows(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
