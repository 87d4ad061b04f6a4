"""Depth estimation as an application of the training engine."""

from typing import Any

import torch

import depthbal.data as data_modules
import depthbal.models as models
from depthbal.data import DepthDataModule
from depthbal.training import schedules
from depthbal.training.application import Application
from depthbal.training.evaluate import evaluate_run
from depthbal.training.regression_task import RegressionTask
from depthbal.training.runs import CheckpointName, RunFolder
from depthbal.training.tables import print_metrics
from depthbal.training.task import DepthTask


def evaluate_trained(
    run: RunFolder,
    task: RegressionTask,
    data: DepthDataModule,
    checkpoint: CheckpointName,
    device: str | torch.device,
) -> dict[str, Any]:
    """Score a checkpoint with the objects of its training; write and return the result."""
    return evaluate_run(
        run.path,
        checkpoint,
        datamodule=data,
        model=task.model,
        criterion=task.criterion,
        device=device,
    )


DEPTH = Application(
    prog="tools/train.py",
    task=DepthTask,
    data=DepthDataModule,
    evaluate=evaluate_trained,
    show=print_metrics,
    short_names=(
        data_modules.FolderDataModule,
        data_modules.NYUD2DataModule,
        data_modules.RoomsDataModule,
        models.ResNetMFF,
        models.SmpDepth,
        schedules.WarmupCosine,
    ),
)
