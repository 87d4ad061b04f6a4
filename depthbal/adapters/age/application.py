"""Age regression, or that of any label of images, as an application of the training engine."""

from typing import Any

import torch

from depthbal.adapters.age.csv_data import AgeDataModule
from depthbal.adapters.age.data import LabelDataModule
from depthbal.adapters.age.drawn import DrawnAgesDataModule
from depthbal.adapters.age.evaluation import evaluate_age
from depthbal.adapters.age.model import AgeRegressor
from depthbal.adapters.age.table import print_result
from depthbal.adapters.age.task import AgeTask
from depthbal.training.application import Application
from depthbal.training.regression_task import RegressionTask
from depthbal.training.runs import CheckpointName, RunFolder
from depthbal.training.schedules import WarmupCosine


def evaluate_trained(
    run: RunFolder,
    task: RegressionTask,
    data: LabelDataModule,
    checkpoint: CheckpointName,
    device: str | torch.device,
) -> dict[str, Any]:
    """Score a checkpoint with the objects of its training; write and return the result."""
    return evaluate_age(
        run.path, data, checkpoint, model=task.model, criterion=task.criterion, device=device
    )


AGE = Application(
    prog="tools/train_age.py",
    task=AgeTask,
    data=LabelDataModule,
    evaluate=evaluate_trained,
    show=print_result,
    short_names=(AgeDataModule, AgeRegressor, DrawnAgesDataModule, WarmupCosine),
)
