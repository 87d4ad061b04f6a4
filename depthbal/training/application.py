"""What a training command is for: the task, its data, and how a finished run is scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from rich.console import Console

from depthbal.training.regression_task import RegressionTask
from depthbal.training.runs import CheckpointName, RunFolder

Evaluate = Callable[
    [RunFolder, RegressionTask, Any, CheckpointName, str | torch.device], dict[str, Any]
]
"""From run folder, task, data module, checkpoint and device to the content of metrics.json."""


@dataclass(frozen=True)
class Application:
    """One use of the training engine.

    Args:
        prog: The tool, as messages name it: "tools/train.py".
        task: What ``--model`` sets.
        data: Base class of what ``--data`` may be.
        evaluate: Scores a checkpoint of a run with the task and the data of its training, or with
            the same rebuilt and set up for the test; writes metrics.json and per_image.npz (best:
            metrics_best.json, per_image_best.npz) into the run folder.
        show: Prints that content.
        short_names: Classes that configs may name without their module; being here, they have been
            imported.
    """

    prog: str
    task: type[RegressionTask]
    data: type[LightningDataModule]
    evaluate: Evaluate
    show: Callable[[Console, dict[str, Any]], None]
    short_names: tuple[type[Any], ...] = ()

    def resume_command(self, run: Path) -> str:
        """Return the command that continues a run."""
        return f"{self.prog} --resume {run}"
