"""LightningCLI without subcommands: config files, overrides, and the run folder."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import ArgumentError, Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from depthbal.data.split_module import SplitDataModule
from depthbal.errors import ConfigError, DepthbalError
from depthbal.files import replacing
from depthbal.models.registry import registered_names
from depthbal.priors.files import write_json
from depthbal.training.application import Application
from depthbal.training.callbacks import run_callbacks, show_progress
from depthbal.training.checkpoint_io import AtomicCheckpointIO
from depthbal.training.configs import last_config
from depthbal.training.parse_errors import explain
from depthbal.training.precision import default_precision, usable_accelerator
from depthbal.training.right_tool import require_tool
from depthbal.training.run_config import build_data
from depthbal.training.run_logger import RunLogger
from depthbal.training.runs import (
    RunFolder,
    claim_run_folder,
    free_folder,
    require_claimable,
    run_name,
)

TOOL_KEYS = ("config", "base", "out", "overwrite", "resume")
RUN_VARIABLE = "DEPTHBAL_RUN"  # tells processes that Lightning starts which folder the first took


class TrainCLI(LightningCLI):
    """Parse, check the run folder, and build task, data and trainer, in this order.

    Args:
        application: What is trained.
        arguments: Command line, with configs expanded.
        resume: The run to continue, or None.
    """

    run_folder: RunFolder

    def __init__(
        self,
        application: Application,
        arguments: Sequence[str],
        resume: RunFolder | None = None,
    ) -> None:
        self.application = application
        self.arguments = list(arguments)
        self.resume = resume
        super().__init__(
            application.task,
            application.data,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                "prog": application.prog,
                "exit_on_error": False,
                "allow_abbrev": False,
            },
            args=self.arguments,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what the tool itself understands."""
        parser.add_argument("--out", type=str | None, help="Run folder; default runs/NAME[-N].")
        parser.add_argument(
            "--overwrite", action="store_true", help="Delete an existing run in --out first."
        )
        parser.add_argument("--resume", type=str | None, help="Run folder to continue in place.")
        parser.add_argument(
            "--base", type=str | None, help="In a config file: the file it is a difference to."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; errors come as ConfigError."""
        config = last_config(self.arguments)
        if config is not None:
            require_tool(self.application.prog, config, self.resume)
        try:
            self.config = parser.parse_args(self.arguments)
        except ArgumentError as error:
            message = explain(str(error), parser.get_defaults().keys())
            raise ConfigError(f"{message}\n--help lists all settings") from error
        _refuse_partial_test(self.config)

    def before_instantiate_classes(self) -> None:
        """Settle the run folder's place before any work."""
        self.run_folder = self.resume or self._choose_folder()

    def instantiate_classes(self) -> None:
        """Build task, data and trainer; values they refuse come as ConfigError."""
        self.require_root()
        self.config.trainer.accelerator = usable_accelerator(str(self.config.trainer.accelerator))
        self.settle_precision()
        complete = self.config
        if self.resume is not None and self.resume.checkpoint("last").is_file():
            self.config = without_weights(complete)
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            if isinstance(error, DepthbalError):
                raise
            raise ConfigError(explain(str(error))) from error
        finally:
            self.config = complete

    def require_root(self) -> None:
        """Check that the data are there, before a network's published weights are downloaded."""
        kind = locate(self.config.data.class_path)
        if getattr(kind, "check_root", SplitDataModule.check_root) is SplitDataModule.check_root:
            return  # nothing to look for, so nothing is built twice
        section = {"data": self._plain_settings(self.config)["data"]}
        build_data(self.application.data, section, (), "this run").check_root()  # type: ignore[attr-defined]

    def _plain_settings(self, config: Namespace) -> dict[str, Any]:
        """Return settings of plain values only.

        By way of JSON, which writes an enumeration or a path, such as the default of a callback, as
        its text.
        """
        text = self.parser.dump(config, format="json", skip_none=False, skip_validation=True)
        settings: dict[str, Any] = json.loads(text)
        return settings

    def settle_precision(self) -> None:
        """Put `default_precision` where ``trainer.precision`` is null, also in config.yaml.

        The result depends on it, so a run is repeated and resumed with the same.
        """
        trainer = self.config.trainer
        trainer.precision = trainer.precision or default_precision(str(trainer.accelerator))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build a trainer that logs and saves into the run folder."""
        given = self.config_init.trainer
        bars = [c for c in _as_list(given.callbacks) if isinstance(c, ProgressBar)]
        wanted = given.enable_progress_bar is not False
        own_bar = wanted and not bars and show_progress()
        self.trainer_defaults["callbacks"] = run_callbacks(
            self.run_folder, self.application.task, own_bar
        )
        return super().instantiate_trainer(
            logger=[RunLogger(self.run_folder.path), *_as_list(given.logger)],
            plugins=[AtomicCheckpointIO(), *_as_list(given.plugins)],
            default_root_dir=self.run_folder.path,
            enable_progress_bar=bool(bars) or own_bar,
            enable_model_summary=bool(given.enable_model_summary),
            **kwargs,
        )

    def claim_folder(self, versions: dict[str, Any]) -> None:
        """Make the run folder, with the configuration from which it can be resumed."""
        if self.resume is None:
            claim_run_folder(self.run_folder.path, self.config.overwrite)
        with replacing(self.run_folder.config) as temporary:
            temporary.write_text(self.config_text(), encoding="utf-8")
        write_json(self.run_folder.versions, versions)

    def config_text(self) -> str:
        """Return the complete settings as YAML, without those of the tool itself.

        Paths are absolute, so that the run can be evaluated and resumed from any folder.
        """
        config = self.config.clone()
        for key in TOOL_KEYS:
            config.pop(key, None)
        for section, name in (("data", "root"), ("model.model", "weights")):
            settings = (config.get(section) or {}).get("init_args") or {}
            value = settings.get(name)
            # published weights have a name, which may be that of a folder here as well
            there = os.path.isfile if name == "weights" else os.path.isdir
            if isinstance(value, str | os.PathLike) and there(value):
                settings[name] = os.path.abspath(value)
        return str(
            yaml.safe_dump(self._plain_settings(config), sort_keys=False, allow_unicode=True)
        )

    def _choose_folder(self) -> RunFolder:
        if getattr(rank_zero_only, "rank", 0):
            path = self.config.out or os.environ.get(RUN_VARIABLE)
            if path is None:
                raise ConfigError("several processes must agree on the run folder; give --out DIR")
            return RunFolder(Path(path))
        if self.config.out:
            path = Path(self.config.out)
            require_claimable(path, self.config.overwrite)
        else:
            path = free_folder(Path("runs"), run_name(last_config(self.arguments) or Path("train")))
        os.environ[RUN_VARIABLE] = str(path.resolve())
        return RunFolder(path)


def _refuse_partial_test(config: Namespace) -> None:
    """Refuse a limit that the evaluation, which is not the Trainer's, would not keep."""
    limit = config.trainer.limit_test_batches
    if limit is not None and not (isinstance(limit, float) and limit == 1):  # 1 is one batch
        raise ConfigError(
            f"--trainer.limit_test_batches {limit} is not possible: a result is always that of the "
            "whole test split, so that results compare. Leave it out, or give null; fewer test "
            "images are other data, such as --data.n_test 40 of RoomsDataModule or a shorter csv"
        )


def without_weights(config: Namespace) -> Namespace:
    """Return a copy whose network starts from nothing: the checkpoint brings all weights.

    Where the training came from stays in the run's config.yaml, but a resumed training neither
    downloads it again nor needs the file.
    """
    config = config.clone()
    network = config.model.model
    known = network.get("class_path", "").rpartition(".")[2] in registered_names()
    if known and "weights" in (network.get("init_args") or {}):
        network.init_args.weights = None
    return config


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
