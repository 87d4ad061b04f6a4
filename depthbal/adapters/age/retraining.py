"""Regressor re-training (RRT): the backbone of a finished run, frozen, under a new linear head."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from depthbal.adapters.age.data import LabelDataModule
from depthbal.checkpoint import read_checkpoint
from depthbal.errors import CheckpointError, RunFolderError
from depthbal.models.weights import load_exactly
from depthbal.rebuilding import part_of_state
from depthbal.training.checkpoint_entry import identity
from depthbal.training.runs import CheckpointName, RunFolder

BACKBONE = "model.backbone."


class BaseRun:
    """A finished training whose backbone is used again.

    Args:
        path: Its run folder.
        checkpoint: The last epoch, or the best on the validation split.

    Raises:
        RunFolderError: No run folder, no checkpoint, a training that was cut off, or a run of
            something else than one label per image.
        CheckpointError: The checkpoint is damaged.
    """

    def __init__(self, path: str | Path, checkpoint: CheckpointName = "last") -> None:
        self.run = RunFolder(Path(path))
        last = read_checkpoint(self.run.require_checkpoint("last"))
        self._require_finished(int(last["epoch"]) + 1)
        self.file = self.run.require_checkpoint(checkpoint)
        self.content = last if checkpoint == "last" else read_checkpoint(self.file)
        if not any(name.startswith(BACKBONE) for name in self.content["state_dict"]):
            raise RunFolderError(
                f"{path} trained {self.content['depthbal']['model'].get('name')}, which is no "
                "backbone with a linear head: --base takes a run of tools/train_age.py"
            )

    def _require_finished(self, epochs: int) -> None:
        """Refuse a training that has not ended: neither all its epochs nor a stop of its own.

        Only a session that reached its end, be it stopped early by a callback, notes how long it
        took.
        """
        wanted = self._settings()["trainer"]["max_epochs"]
        if "duration_s" in self._versions() or (wanted is not None and 0 < wanted <= epochs):
            return
        resume = f"python tools/train_age.py --resume {self.run.path}"
        raise RunFolderError(
            f"{self.run.path} was cut off: its last checkpoint is of epoch {epochs} of {wanted}, "
            f"and --base takes a finished training; finish it with: {resume} (to end it at this "
            f"epoch, add --trainer.max_epochs {epochs})"
        )

    def require_model(self, described: dict[str, Any]) -> None:
        """Check that the backbone is that of a model.

        Args:
            described: The model's name and arguments (see `describe_module`).

        Raises:
            CheckpointError: The run trained another model.
        """
        theirs, mine = identity(self.content["depthbal"]["model"]), identity(described)
        if theirs != mine:
            raise CheckpointError(
                f"{self.run.path} trained {theirs}, this training has {mine}: the model comes from "
                "the base run, so leave out --model.model and its likes, and in the config the "
                "section model: model:, or give another --base"
            )

    def warn_of_other_data(self, data: LabelDataModule) -> None:
        """Warn where the training data are not those that the backbone was trained on."""
        fingerprint = data.fingerprint()
        known = (self._versions().get("data") or {}).get("fingerprint")
        if known not in (None, fingerprint):
            warnings.warn(
                f"the training data are not those that {self.run.path} was trained on "
                f"(fingerprint {fingerprint}, then {known}): its backbone stays as it is, prior "
                "and shots are those of the new data",
                stacklevel=2,
            )

    def load_into(self, backbone: nn.Module) -> None:
        """Copy the backbone's weights and running statistics, exactly."""
        load_backbone(backbone, self.content, str(self.file))

    def inherit(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line that re-trains the head of this run.

        The run's settings come first, so that those of the config and of the command line win. What
        its network started from need neither be downloaded nor be there any more.

        Args:
            arguments: The command line without ``--base``.
        """
        settings = ["--config", str(self.run.config)]
        model = self._settings()["model"]["model"]
        if (model.get("init_args") or {}).get("weights") is not None:
            settings.append("--model.model.init_args.weights=null")
        return [*settings, *arguments, f"--model.base_run={self.run.path.resolve()}"]

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = yaml.safe_load(self.run.config.read_text(encoding="utf-8"))
        return settings

    def _versions(self) -> dict[str, Any]:
        versions: dict[str, Any] = json.loads(self.run.versions.read_text(encoding="utf-8"))
        return versions


def load_backbone(backbone: nn.Module, checkpoint: dict[str, Any], file: str) -> None:
    """Fill a backbone from the checkpoint of a whole model.

    Args:
        backbone: What to fill.
        checkpoint: The file's content.
        file: Its name, for messages.

    Raises:
        CheckpointError: The parameters are not the backbone's.
    """
    own = part_of_state(checkpoint["state_dict"], BACKBONE)
    load_exactly(backbone, own, f"the backbone of {file}")


def inherit(arguments: Sequence[str], base: str) -> list[str]:
    """Return the command line that re-trains the head of a base run.

    Args:
        arguments: The command line without ``--base``, see `BaseRun.inherit`.
        base: The base run's folder.

    Raises:
        RunFolderError: As `BaseRun`.
    """
    return BaseRun(base).inherit(arguments)
