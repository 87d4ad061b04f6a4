"""A finished run of any application, rebuilt from its config.yaml and scored."""

import pydoc
from collections.abc import Sequence
from typing import Any

import torch
import yaml

from depthbal.errors import ConfigError
from depthbal.training.application import Application
from depthbal.training.cli import TrainCLI
from depthbal.training.configs import expand_configs
from depthbal.training.runs import CheckpointName, RunFolder


class _WithoutTrainer(TrainCLI):
    """Task and data of a run; a trainer would want the devices and loggers of the training."""

    def require_root(self) -> None:
        """Look for nothing: the test split's setup does, and wants no more than that split."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build none."""
        return None


def application_of(run: RunFolder, applications: Sequence[Application]) -> Application:
    """Return the application whose data a run was trained on, the first where that is not known.

    Args:
        run: The run folder.
        applications: Of whose runs it may be one.
    """
    try:
        name = yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]["class_path"]
        data = pydoc.locate(name)
    except (OSError, yaml.YAMLError, KeyError, TypeError, pydoc.ErrorDuringImport):
        data = None
    known = (a for a in applications if isinstance(data, type) and issubclass(data, a.data))
    return next(known, applications[0])


def evaluate_again(
    application: Application,
    run: RunFolder,
    checkpoint: CheckpointName = "last",
    data_overrides: Sequence[str] = (),
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Score a checkpoint of a finished run as its training scored the last epoch.

    Args:
        application: What the run is of.
        run: The run folder.
        checkpoint: The last epoch, or the best on the validation split.
        data_overrides: Settings of the data that win, such as ``["--data.root", "/elsewhere"]``.
        device: Where to compute.

    Returns:
        The content of the metrics file, which is written into the run folder.

    Raises:
        RunFolderError: No such run or checkpoint.
        ConfigError: A setting is unknown, refused or not one of the data.
        DataError: The test split is missing or damaged.
    """
    run.require_checkpoint(checkpoint)
    for flag in data_overrides:
        if flag.startswith("--") and not flag.startswith("--data."):
            raise ConfigError(f"unknown option {flag}; of a run only --data.KEY can be changed")
    unused = ("logger", "callbacks", "plugins")  # of the trainer, that could not be built here
    arguments = ["--config", str(run.config), *(f"--trainer.{name}=null" for name in unused)]
    built = _WithoutTrainer(application, expand_configs([*arguments, *data_overrides]), run)
    built.datamodule.prepare_data()
    built.datamodule.setup("test")
    return application.evaluate(run, built.model, built.datamodule, checkpoint, device)
