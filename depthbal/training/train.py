"""The training command: parse, train, evaluate, say where everything is."""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from rich.console import Console

from depthbal.checkpoint import read_checkpoint
from depthbal.errors import ConfigError, DepthbalError, RunFolderError
from depthbal.priors.files import write_json
from depthbal.reports import write_report
from depthbal.training.application import Application
from depthbal.training.cli import TrainCLI
from depthbal.training.configs import expand_configs, last_config
from depthbal.training.depth import DEPTH
from depthbal.training.run_logger import drop_rows_from
from depthbal.training.runs import RunFolder
from depthbal.training.tables import duration_text
from depthbal.training.versions import (
    EARLIER,
    collect_versions,
    earlier_sessions,
    with_duration,
)


def train(
    arguments: Sequence[str], default_config: Path, application: Application = DEPTH
) -> RunFolder:
    """Train, evaluate the last epoch, print the result, and return the run folder.

    Args:
        arguments: The command line: ``--config FILE``, any setting as ``--section.key VALUE``,
            ``--out DIR``, ``--overwrite``; or ``--resume RUN`` with settings of trainer and data.
        default_config: What runs without ``--config``.
        application: What is trained.

    Raises:
        DepthbalError: Whatever the user can mend: settings, data, an existing run folder.
    """
    started = time.monotonic()
    resumed, arguments = _take_resume(arguments)
    cli = TrainCLI(application, _with_config(arguments, resumed, default_config), resumed)
    run = cli.run_folder
    step = _resumed_step(run, cli) if resumed else None
    versions = collect_versions(cli.config.seed_everything, _device_name(cli.trainer))
    if cli.trainer.is_global_zero:
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")  # bad data must not leave a run folder behind
        cli.model.check_data(cli.datamodule)
        cli.model.check_callbacks(cli.trainer.callbacks)  # type: ignore[attr-defined]
        if step is None and hasattr(cli.datamodule, "train_histogram"):
            # counted before there are other processes: an error here must not leave them waiting
            cli.datamodule.train_histogram()
        versions["data"] = cli.datamodule.describe()
        if resumed:
            versions[EARLIER] = _earlier_sessions(run, versions["data"])
        cli.claim_folder(versions)
        print(f"Run folder: {run.path}")
        if step is not None:
            drop_rows_from(run.metrics_csv, step)
        elif resumed:
            print(f"{run.path} has no checkpoint yet; training starts from the beginning")
            run.metrics_csv.unlink(missing_ok=True)
    _fit(cli, None if step is None else run.checkpoint("last"))
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()  # the evaluation is one process's work
    if not cli.trainer.is_global_zero or cli.config.trainer.fast_dev_run:
        return run  # a development run leaves no checkpoint to evaluate
    device = cli.trainer.strategy.root_device
    metrics = application.evaluate(run, cli.model, cli.datamodule, "last", device)
    seconds = time.monotonic() - started
    write_json(run.versions, with_duration(versions, seconds))
    console = Console()
    application.show(console, metrics)
    console.print(f"Training and evaluation took {duration_text(seconds)}.", highlight=False)
    report = _write_report(run)
    if report is not None:
        console.print(f"Report: {report}", highlight=False, soft_wrap=True)
    console.print(f"Run folder: {run.path}", highlight=False, soft_wrap=True)
    return run


def _write_report(run: RunFolder) -> Path | None:
    """Write the run's report; a report that cannot be written spoils no training."""
    try:
        return write_report([run.path], run.report)
    except Exception as error:  # whatever it is, the training's result stands
        kind = "" if isinstance(error, DepthbalError | OSError) else f"{type(error).__name__}: "
        warnings.warn(f"no report was written: {kind}{error}", stacklevel=2)
        return None


def _fit(cli: TrainCLI, checkpoint: Path | None) -> None:
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    except MisconfigurationException as error:
        raise ConfigError(str(error)) from error
    except RuntimeError as error:  # of any kind; that of EarlyStopping is a setting to mend
        if "conditioned on metric" not in str(error):
            raise
        raise ConfigError(f"--trainer.callbacks: {error}") from error
    except SystemExit as error:  # how Lightning ends after Ctrl-C
        command = cli.application.resume_command(cli.run_folder.path)
        print(f"stopped; continue with: {command}", file=sys.stderr)
        raise KeyboardInterrupt from error


def _take_resume(arguments: Sequence[str]) -> tuple[RunFolder | None, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume")
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    if known.resume is None:
        return None, rest
    for flag in rest:
        if flag.startswith("-") and not flag.startswith(("--trainer.", "--data.")):
            raise ConfigError(
                f"--resume continues the training as it was, in place; of {flag} and the like only "
                "--trainer.KEY and --data.KEY can be changed"
            )
    run = RunFolder(Path(known.resume))
    run.require_run()
    _refuse_converted(run)
    return run, rest


def _refuse_converted(run: RunFolder) -> None:
    """Refuse a published checkpoint as a run: it has no training to continue."""
    source = _read_versions(run).get("converted_from")
    if source is not None:
        raise ConfigError(
            f"{run.path} was converted from the published checkpoint {source}: it can be evaluated "
            "and predicts, but holds no training to continue. For a new training that starts from "
            "its weights: tools/train.py --config configs/nyud2/mse.yaml "
            f"--model.model.init_args.weights {source} --data.root FOLDER"
        )


def _with_config(
    arguments: list[str], resumed: RunFolder | None, default_config: Path
) -> list[str]:
    if resumed is not None:
        arguments = ["--config", str(resumed.config), *arguments]
    elif last_config(arguments) is None:
        arguments = ["--config", str(default_config), *arguments]
    return expand_configs(arguments)


def _resumed_step(run: RunFolder, cli: TrainCLI) -> int | None:
    """Return the step to continue from; None where the first epoch was never finished.

    Nothing in the run folder changes before this: what cannot be resumed stays as it is.

    Raises:
        ConfigError: The training is complete.
    """
    path = run.checkpoint("last")
    if not path.is_file():
        return None
    content = read_checkpoint(path)
    cli.model.on_load_checkpoint(content)
    done, wanted = int(content["epoch"]) + 1, cli.trainer.max_epochs
    if wanted is not None and 0 < wanted <= done and run.metrics().is_file():
        raise ConfigError(
            f"{run.path} is complete ({done} of {wanted} epochs, evaluated); to train on, give a "
            f"larger --trainer.max_epochs than {wanted}"
        )
    cli.model.starts_from_checkpoint = True
    return int(content["global_step"])


def _earlier_sessions(run: RunFolder, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the earlier sessions of a run, after warning where the data have changed since."""
    previous = _read_versions(run)
    known = (previous.get("data") or {}).get("fingerprint")
    if known not in (None, data["fingerprint"]):
        warnings.warn(
            f"the training data are not those that {run.path} was started with (fingerprint "
            f"{data['fingerprint']}, then {known}); the training goes on with the new ones, but "
            "its prior and its shots stay those of the old ones",
            stacklevel=2,
        )
    return earlier_sessions(previous)


def _read_versions(run: RunFolder) -> dict[str, Any]:
    """Return what a run was made with."""
    try:
        versions = json.loads(run.versions.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{run.versions} is damaged ({error})") from error
    if not isinstance(versions, dict):
        raise RunFolderError(f"{run.versions} is damaged (it holds no keys and values)")
    return versions


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
