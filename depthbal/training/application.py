"""What a training command is for: the task, its data, and how a finished run is scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule
from rich.console import Console

from depthbal.training.regression_task import RegressionTask
from depthbal.training.runs import RunFolder

if TYPE_CHECKING:
    from depthbal.training.cli import TrainCLI


@dataclass(frozen=True)
class Application:
    """One use of the training engine.

    Args:
        prog: The tool, as messages name it: "tools/train.py".
        task: What ``--model`` sets.
        data: Base class of what ``--data`` may be.
        evaluate: Scores the last epoch of a training that has just ended, writes metrics.json and
            per_image.npz into the run folder, and returns the content of metrics.json.
        show: Prints that content.
        short_names: Classes that configs may name without their module; being here, they have been
            imported.
    """

    prog: str
    task: type[RegressionTask]
    data: type[LightningDataModule]
    evaluate: Callable[[RunFolder, "TrainCLI"], dict[str, Any]]
    show: Callable[[Console, dict[str, Any]], None]
    short_names: tuple[type[Any], ...] = ()

    def resume_command(self, run: Path) -> str:
        """Return the command that continues a run."""
        return f"{self.prog} --resume {run}"
