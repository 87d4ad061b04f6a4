"""Depth estimation as an application of the training engine."""

from typing import Any

import depthbal.data as data
import depthbal.models as models
from depthbal.training import schedules
from depthbal.training.application import Application
from depthbal.training.cli import TrainCLI
from depthbal.training.evaluate import evaluate_run
from depthbal.training.runs import RunFolder
from depthbal.training.tables import print_metrics
from depthbal.training.task import DepthTask


def evaluate_trained(run: RunFolder, cli: TrainCLI) -> dict[str, Any]:
    """Score the last epoch with the objects of its training; write and return the result."""
    return evaluate_run(
        run.path,
        datamodule=cli.datamodule,
        model=cli.model.model,
        criterion=cli.model.criterion,
        device=cli.trainer.strategy.root_device,
    )


DEPTH = Application(
    prog="tools/train.py",
    task=DepthTask,
    data=data.DepthDataModule,
    evaluate=evaluate_trained,
    show=print_metrics,
    short_names=(
        data.FolderDataModule,
        data.NYUD2DataModule,
        data.RoomsDataModule,
        models.ResNetMFF,
        models.SmpDepth,
        schedules.WarmupCosine,
    ),
)
