"""Objects rebuilt from a run's config.yaml."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from pytorch_lightning import LightningDataModule

import depthbal.data as data
from depthbal.data import DepthDataModule
from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation.label import DEPTH
from depthbal.training.parse_errors import explain
from depthbal.training.runs import RunFolder

Data = TypeVar("Data", bound=LightningDataModule)

SHORT_NAMES = (data.FolderDataModule, data.NYUD2DataModule, data.RoomsDataModule)


def load_datamodule(run: RunFolder, overrides: Sequence[str] = ()) -> DepthDataModule:
    """Build the data module that a run was trained with.

    Args:
        run: The run folder.
        overrides: Settings that win, such as ``["--data.root", "/elsewhere"]``.

    Raises:
        RunFolderError: The run has no readable configuration.
        ConfigError: A setting is unknown or refused.
    """
    run.require_run()
    require_depth(run)
    try:
        section = {"data": yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]}
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{run.config} is damaged: it has no section data") from error
    return build_data(DepthDataModule, section, overrides, str(run.path))


def require_depth(run: RunFolder) -> None:
    """Check that a run predicts depth, as far as its result says what it predicts.

    Raises:
        ConfigError: It predicts something else.
    """
    try:
        content = json.loads(run.metrics().read_text(encoding="utf-8"))
        name = content["protocol"]["label"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if name != DEPTH.name:
        raise ConfigError(f"{run.path} predicts {name}; this tool is for networks of {DEPTH.name}")


def build_data(
    base: type[Data], section: Mapping[str, Any], overrides: Sequence[str], what: str
) -> Data:
    """Build a data module from the section of a config.

    Args:
        base: What it must be a subclass of.
        section: ``{"data": {"class_path": ..., "init_args": ...}}``.
        overrides: Settings that win, such as ``["--data.root", "/elsewhere"]``.
        what: Whose data these are, for messages.

    Raises:
        ConfigError: A setting is unknown or refused.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(base, "data", required=True, fail_untyped=False)
    try:
        parsed = parser.parse_args(["--config", yaml.safe_dump(section), *overrides])
        built: Data = parser.instantiate_classes(parsed).data
    except (ArgumentError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the data of {what}: {explain(str(error))}") from error
    return built
