"""The run folder: one place for everything that a training leaves behind, and how it is opened."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

import depthbal
from depthbal.checkpoint import find_checkpoint, network_state, part_of_state, read_checkpoint
from depthbal.data.label_data import LabelData
from depthbal.errors import RunFolderError
from depthbal.io import write_json
from depthbal.models.weights import load_exactly
from depthbal.priors import Histogram
from depthbal.training.settings import build, make_parser, parse, plain, with_checkpoint
from depthbal.training.task import Task

CheckpointName = Literal["last", "best"]

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "torchmetrics", "segmentation-models-pytorch"),
    *("albumentations", "opencv-python-headless", "numpy", "scikit-learn", "jsonargparse"),
    *("timm", "transformers", "peft"),
)


class RunFolder:
    """The paths inside a run folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"  # all settings
        self.record = self.path / "run.json"  # versions, machine, command, data, sessions
        self.prior = self.path / "prior.json"  # the training labels' histogram, the loss's prior
        self.metrics_csv = self.path / "metrics.csv"  # learning curves
        self.metrics = self.path / "metrics.json"
        self.report = self.path / "report.html"

    def checkpoint(self, name: CheckpointName) -> Path:
        """Return the path of a checkpoint, which need not exist."""
        return self.path / "checkpoints" / f"{name}.ckpt"

    def evaluation(self, *names: str) -> Path:
        """Return the folder of an evaluation: the run itself, or one in ``eval/`` of this name."""
        return self.path / "eval" / "_".join(names) if names else self.path

    def is_run(self) -> bool:
        """Whether the folder was written by a training, or a conversion, of this version."""
        return self.config.is_file() and self.record.is_file()

    def require_run(self) -> None:
        """Raise a RunFolderError where this is no run folder."""
        if not self.is_run():
            near = [str(folder) for folder in self.path.parents if RunFolder(folder).is_run()]
            where = f"; the run folder that holds it is {near[0]}" if near else ""
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no config.yaml and run.json{where}"
            )

    def read_record(self) -> dict[str, Any]:
        """Return run.json."""
        return _read_json(self.record)

    def histogram(self) -> Histogram | None:
        """Return the training labels' histogram; None where the run keeps none."""
        stored = _read_json(self.prior).get("histogram") if self.prior.is_file() else None
        return None if stored is None else Histogram.from_dict(stored)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error})") from error


class Run(RunFolder):
    """A run and the objects of its training, made when they are first asked for; see `open_run`."""

    def __init__(self, path: str | Path, overrides: Sequence[str] = ()) -> None:
        super().__init__(path)
        self.require_run()
        self._parser = make_parser("depthbal evaluate")
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            # devices, loggers and callbacks of the training are not those of this machine
            stored = {key: content[key] for key in ("seed_everything", "model", "data")}
        except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{self.config} is damaged ({error})") from error
        self.settings = parse(self._parser, overrides, stored)

    @cached_property
    def data(self) -> LabelData:
        """The data module, not yet set up; it knows the training labels' histogram."""
        data: LabelData = build(self._parser, self.settings, "data")
        data.histogram = self.histogram()
        return data

    def task(self, checkpoint: CheckpointName = "last") -> Task:
        """Return the task with the weights of a checkpoint."""
        file = find_checkpoint(self.path, checkpoint)
        content = read_checkpoint(file)
        settings = with_checkpoint(self.settings, content)
        if settings.model.init_args.get("lora") is not None:
            settings.model.init_args.lora = None  # the weights have it in them
        task: Task = build(self._parser, settings, "model")
        task.settings = plain(self._parser, self.settings)["model"]["init_args"]
        task.on_load_checkpoint(content)
        task.input_spec = content["depthbal"]["input"]
        task.label = self.data.label
        criterion = part_of_state(content["state_dict"], "criterion.")
        load_exactly(task.criterion, criterion, f"{file} into the criterion")
        load_exactly(task.model, network_state(content), f"{file} into the model")
        task.test_facts = {"checkpoint": checkpoint, "epochs": int(content["epoch"]) + 1}
        return task.eval()


def open_run(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Open a run of any application: ``run.data``, ``run.task(checkpoint)``, and its paths.

    The classes are those that config.yaml names, imported as for a training. ``overrides`` are
    settings of the data that win, such as ``["--data.root", "/elsewhere"]``.

    Raises:
        RunFolderError: No run, or a damaged one.
        ConfigError: A setting is unknown or refused.
    """
    return Run(path, overrides)


def data_of(name: str, overrides: Sequence[str] = ()) -> LabelData:
    """Return the data module of a run folder, or of a class with settings, not yet set up."""
    if RunFolder(name).is_run():
        return open_run(name, overrides).data
    parser = make_parser("depthbal evaluate", ("data",))
    data: LabelData = build(parser, parse(parser, ["--data", name, *overrides]), "data")
    return data


# ---- where a new run goes ----


def require_claimable(path: Path, overwrite: bool = False) -> None:
    """Check, untouched, that a run may be put at ``path``; ``overwrite`` deletes runs alone."""
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not (there.is_dir() and os.access(there, os.R_OK | os.W_OK | os.X_OK)):
        raise RunFolderError(f"{there} is not a directory that can be written; give another --out")
    if there != path or not any(path.iterdir()):
        return
    if not overwrite:
        go_on = f", continue it with --resume {path}" * RunFolder(path).is_run()
        raise RunFolderError(
            f"{path} exists and is not empty; choose another folder with --out{go_on}, or delete "
            "it with --overwrite"
        )
    if not RunFolder(path).is_run():
        raise RunFolderError(
            f"{path} is not a run folder, so --overwrite does not delete it; choose another --out"
        )


def claim_run_folder(path: Path, overwrite: bool = False) -> RunFolder:
    """Make an empty run folder at ``path``, deleting a previous run where that is allowed."""
    require_claimable(path, overwrite)
    if path.is_dir():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return RunFolder(path)


def free_folder(parent: Path, name: str) -> Path:
    """Return the first of ``parent/name``, ``parent/name-2``, ... that does not exist."""
    names = (name, *(f"{name}-{number}" for number in range(2, 10_000)))
    return next(parent / one for one in names if not (parent / one).exists())


def run_name(config: str) -> str:
    """Return the name of a config's runs: ``rooms-gai`` of ``configs/rooms/gai.yaml``."""
    path = Path(config).with_suffix("")
    parts = path.parts
    if "configs" in parts:
        parts = parts[len(parts) - parts[::-1].index("configs") :]
    elif path.is_absolute() or Path(config).is_file():
        parts = parts[-1:]
    return "-".join(parts)


# ---- run.json ----


def run_record(seed: int | bool, device: str) -> dict[str, Any]:
    """Return versions, machine, seed and command line, JSON-able."""
    return {
        "depthbal": depthbal.__version__,
        "python": platform.python_version(),
        **{name: _installed(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "git_commit": _git_commit(),
        "command": shlex.join(sys.argv),
    }


def save_prior(run: RunFolder, task: Task) -> None:
    """Write the training labels' histogram and the loss's prior into the run folder."""
    prior = getattr(task.criterion, "prior", None)
    content = {
        "histogram": None if task.histogram is None else task.histogram.to_dict(),
        "prior": prior.to_dict() if prior is not None and hasattr(prior, "to_dict") else None,
    }
    write_json(run.prior, content)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the package's own checkout, marked where files differ from it."""
    source = Path(depthbal.__file__).parents[1]
    if not (source / ".git").exists():
        return None

    line = ["git", "-C", str(source), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*line, "--dirty"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
