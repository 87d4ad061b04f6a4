"""What settings say, without building anything from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from depthbal.training.application import Application
from depthbal.training.cli import TrainCLI
from depthbal.training.configs import expand_configs
from depthbal.training.runs import RunFolder


class _ParsedOnly(TrainCLI):
    """The training's parser and nothing else."""

    def _set_seed(self) -> None:
        """Leave this process's random numbers alone."""

    def before_instantiate_classes(self) -> None:
        """Touch no run folder."""

    def instantiate_classes(self) -> None:
        """Build nothing."""
        self.settle_precision()


def all_settings(application: Application, arguments: Sequence[str]) -> dict[str, Any]:
    """Return every setting that a command line of the training means, by its dotted name.

    Args:
        application: What is trained.
        arguments: As for the training, ``--config FILE`` and overrides.

    Raises:
        ConfigError: A setting is unknown or refused.
    """
    return dict(_flat(parsed_settings(application, arguments)))


def parsed_settings(application: Application, arguments: Sequence[str]) -> dict[str, Any]:
    """Return every setting that a command line of the training means, as config.yaml holds them.

    Args:
        application: What is trained.
        arguments: As for the training, ``--config FILE`` and overrides.

    Raises:
        ConfigError: A setting is unknown or refused.
    """
    parsed = _ParsedOnly(application, expand_configs(arguments))
    settings: dict[str, Any] = yaml.safe_load(parsed.config_text())
    return settings


def different_settings(
    application: Application, run: RunFolder, arguments: Sequence[str]
) -> list[str]:
    """Return what a command line would set otherwise than a run did, one text per setting.

    Args:
        application: What is trained.
        run: The run folder.
        arguments: As for `all_settings`.

    Raises:
        ConfigError: A setting is unknown or refused.
    """
    ran = all_settings(application, ["--config", str(run.config)])
    asked = all_settings(application, arguments)
    names = sorted({*ran, *asked})
    return [
        f"{name} {ran.get(name)}, not {asked.get(name)}"
        for name in names
        if ran.get(name) != asked.get(name)
    ]


def _flat(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as pairs of dotted name and value."""
    if not isinstance(settings, Mapping) or not settings:
        return [(prefix, settings)]
    dotted = f"{prefix}." if prefix else ""
    return [pair for key in settings for pair in _flat(settings[key], f"{dotted}{key}")]
