"""Scoring a run's network on the test split, by any of its task's protocols."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar

from depthbal.checkpoint import find_checkpoint, read_checkpoint
from depthbal.data.label_data import LabelData
from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation import Scores
from depthbal.evaluation.balancing import require_unseen
from depthbal.evaluation.protocols import evaluation_name
from depthbal.evaluation.scores import RESULT_FILE
from depthbal.io import show_progress
from depthbal.losses import LogLabelLoss, sigma_from_rmse
from depthbal.losses.posthoc import BalanceMap
from depthbal.predictor import balance_map, load_balance, require_plain
from depthbal.training.resuming import read_rows
from depthbal.training.runs import CheckpointName, Run, RunFolder, open_run
from depthbal.training.settings import options_of
from depthbal.training.task import Task

RESIDUAL = "val/rmse"  # of metrics.csv: from which --posthoc auto takes sigma


def evaluate_run(
    path: str | Path,
    checkpoint: CheckpointName = "last",
    protocol: str | Sequence[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    device: str | torch.device = "cpu",
    seed: int = 0,
    posthoc: float | Literal["auto"] | None = None,
    balance: str | Path | None = None,
    tau: float | None = None,
    relative_to: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> tuple[dict[str, Any], Path]:
    """Score a run of any application and write the result into ``RUN/eval/NAME``.

    Nothing is fitted: prior and histogram come from the run. The last checkpoint by the task's
    first protocol on the run's own images goes into the run folder itself; NAME tells what differs.

    Args:
        path: The run folder.
        checkpoint: The last epoch, or the best on the validation split.
        protocol: Of the task's ``protocols``, several to be scored in one pass: each into its own
            folder, the first one's has the table of all. Default: the task's first.
        overrides: Settings of the data that win, such as ``["--data.root", "/elsewhere"]``.
        device: Where to compute.
        seed: Of what the protocol draws, such as a balanced mask.
        posthoc: Balance the predictions of a plain loss's network with this noise scale, label
            units, before they are read out; "auto" takes the error on validation.
        balance: File that `depthbal balance` wrote, to balance with before the read-out.
        tau: Share of the balancing that a network of BinsLoss is read out with, and
        relative_to: its world, as in ``Predictor.set_world``.
        force: Score images that the balancing was calibrated on.
        **options: How maps are scored, as for `depthbal.evaluate`: crop, cap, alignments,
            edges.

    Returns:
        The content of metrics.json, and its folder.

    Raises:
        RunFolderError, CheckpointError, DataError: The run, its checkpoint or the test split is
            missing or damaged.
        ConfigError: The task has no such protocol, or the run cannot be balanced afterwards.
    """
    for flag in overrides:
        if flag.startswith("--") and not flag.startswith("--data"):
            raise ConfigError(f"unknown option {flag}; of a run only --data.KEY can be changed")
    run = open_run(path, overrides)
    task, names = run.task(checkpoint), [] if checkpoint == "last" else [str(checkpoint)]
    chosen = [protocol] if isinstance(protocol, str) else list(protocol or task.protocols[:1])
    if unknown := [name for name in chosen if name not in task.protocols]:
        raise ConfigError(
            f"{run.path} is scored by {' or '.join(task.protocols)}, not by {unknown[0]!r}"
        )
    task.protocol, task.test_seed = chosen, seed
    given = {key: value for key, value in options.items() if value}
    if given and task.test_options is None:
        raise ConfigError(f"{run.path} predicts no maps, of which alone there are {list(given)}")
    task.test_options = given
    names += ["_".join([*a, "aligned"]) for a in [given.get("alignments", ())] if {*a} - {"none"}]
    if posthoc is not None:
        balance_afterwards(run, task, *posthoc_sigma(run, checkpoint, posthoc))
    seen = [] if balance is None else use_balance(run, task, balance)
    task.posthoc = task.predictor().set_world(tau, relative_to).posthoc
    if task.posthoc is not None and relative_to is not None:
        task.test_facts["posthoc"] |= {"relative_to": str(relative_to)}
    names += balance_names(task.posthoc, balance, tau, relative_to)
    if seed:
        names.append(f"seed_{seed}")
    device, bar, data = torch.device(device), show_progress(), run.data
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="32-true",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[RichProgressBar()] if bar else [],
        enable_progress_bar=bar,
        use_distributed_sampler=False,
    )
    data.prepare_data()
    data.setup("test")
    trainer.datamodule = data  # type: ignore[attr-defined]
    trainer.test(task, dataloaders=task.test_loader(data), verbose=False)
    scores = cast(Scores, task.test_scores)
    if not force:
        require_unseen(seen, scores.names)
    other = _other_data(run, overrides, scores)
    folders = []
    for one in (scores, *task.test_beside):
        own = [] if chosen[0] == task.protocols[0] else [evaluation_name(one)]
        folder = run.evaluation(*[other] * bool(other), *own, *names)
        while other and _holds_other_data(folder, one):
            folder = folder.with_name(f"{folder.name}_2")
        folders.append(folder)
    for one, folder in zip(task.test_beside, folders[1:], strict=True):
        one.save(folder)
    return save_evaluation(task, data, folders[0]), folders[0]


def _other_data(run: RunFolder, overrides: Sequence[str], scores: Scores) -> str:
    """Return what scores of other images than the run's own are called after, "" for its own."""
    options = [one for option in options_of(overrides) for one in option]
    parts = [part.strip("[]") for one in options for part in one.split("=", 1)]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    given = [(key.removeprefix("--data").lstrip("."), value) for key, value in pairs]
    words = [
        Path(value).resolve().name if key in ("", "root") else f"{key}_{value}"
        for key, value in given
        if key not in ("batch_size", "num_workers")  # they change no number
    ]
    if not words:
        return ""
    root = yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]["init_args"].get("root")
    # the same truths with other pictures (fog, another camera) are no data that have moved
    still_there = root is not None and Path(root).expanduser().exists()
    try:
        own = Scores.load(run.path)
        moved = (
            not still_there
            and own.names == scores.names
            and np.array_equal(
                *(one.joint("all").sum(1) for one in (own, scores))  # truths per bin
            )
        )
    except RunFolderError:
        moved = False
    return "" if moved else re.sub(r"[^\w.,-]+", "-", "_".join(words))


def _holds_other_data(folder: Path, scores: Scores) -> bool:
    if not (folder / RESULT_FILE).is_file():
        return False
    shown = (json.dumps(one.given.get("data")) for one in (Scores.load(folder), scores))
    return next(shown) != next(shown)


def save_evaluation(task: Task, data: LabelData, folder: Path) -> dict[str, Any]:
    """Write what a test left in a task: scores, metrics and examples."""
    scores = task.test_scores
    assert scores is not None
    result = scores.save(folder, task.result(scores))
    task.eval().save_examples(data, folder)  # a test gives back the mode from before it
    return result


# ---- balancing afterwards ----


def balance_afterwards(run: RunFolder, task: Task, sigma: float, source: str = "given") -> None:
    """Have a plain loss's network balanced before it is read out, and its protocol say so."""
    ends = getattr(task.criterion, "label_range", None)
    task.posthoc = balance_map(task.criterion, run.histogram(), sigma, ends, str(run.path))
    prior = "training histogram of the run, point masses at the centres of its bins"
    facts = {"noise_sigma": sigma, "sigma_from": source, "prior": prior}
    if isinstance(task.criterion, LogLabelLoss):
        facts["noise_unit"] = "of logarithms"
    task.test_facts |= {"posthoc": facts, "noise_sigma": sigma}


def balance_names(
    posthoc: BalanceMap | None,
    balance: str | Path | None,
    tau: float | None,
    relative_to: str | Path | None,
) -> list[str]:
    """Return what an evaluation, or an export, is called after what balanced it."""
    names = []
    if balance is not None:
        names.append("_".join(dict.fromkeys(("balance", Path(balance).stem))))
    elif posthoc is not None:
        names.append(f"posthoc_{posthoc.noise_sigma:.12g}")
    names += [] if tau is None else [f"tau_{tau:g}"]
    return names + ([] if relative_to is None else [f"to_{Path(relative_to).stem}"])


def use_balance(run: RunFolder, task: Task, path: str | Path) -> list[str]:
    """Have a network balanced by a file; return the names of the images it was calibrated on."""
    task.posthoc = load_balance(path, task.criterion, task.label, str(run.path))
    task.test_facts |= {"posthoc": {"file": str(path), **task.posthoc.describe()}}
    if task.posthoc.noise_sigma is None:
        interval = "68.27 % interval of the label given the prediction, calibrated"
        task.test_facts["interval"] = interval
    else:
        task.test_facts["noise_sigma"] = task.posthoc.noise_sigma
    return list((task.posthoc.facts or {}).get("names", []))


def posthoc_sigma(
    run: Run, checkpoint: CheckpointName, wanted: float | Literal["auto"]
) -> tuple[float, str]:
    """Return the sigma that was given and "given", or that of the last validation error and which.

    It is that of the checkpoint's epoch, or of the last before it that was validated.
    """
    if wanted != "auto":
        return float(wanted), "given"
    last = int(read_checkpoint(find_checkpoint(run.path, checkpoint))["epoch"])
    rows = [row for row in read_rows(run.metrics_csv)[1] if row.get(RESIDUAL)]
    values = [(row["epoch"], float(row[RESIDUAL])) for row in rows if int(row["epoch"]) <= last]
    if not values or not math.isfinite(values[-1][1]):
        raise ConfigError(
            f"{run.metrics_csv} has no finite {RESIDUAL} up to epoch {last}, from which "
            "--posthoc auto takes sigma; give --posthoc SIGMA in label units"
        )
    if run.settings.model.init_args.get("label_transform") is not None:
        raise ConfigError(
            "--posthoc auto takes sigma from an RMSE of the labels, not of their logarithms, of "
            "which this loss is; give --posthoc SIGMA, such as 0.1"
        )
    (epoch, rmse), histogram = values[-1], run.histogram()
    source = f"{RESIDUAL} {rmse:.3g} of epoch {epoch} and the histogram of the training labels"
    if histogram is None:  # nor can anything be balanced: the map says so
        return rmse, source
    try:
        sigma = sigma_from_rmse(rmse, histogram)
    except ValueError as error:
        require_plain(run.task(checkpoint).criterion, str(run.path))
        raise ConfigError(f"{run.path}: {error}; or give --posthoc SIGMA") from error
    return float(f"{sigma:.3g}"), source  # its error is larger
