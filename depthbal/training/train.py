"""A training from its settings to its report."""

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import (
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    WeightAveraging,
)
from torch import Tensor

from depthbal.checkpoint import read_checkpoint
from depthbal.data.label_data import LabelData
from depthbal.errors import ConfigError
from depthbal.io import replacing, show_progress, write_json
from depthbal.training.evaluate import save_evaluation
from depthbal.training.optimisation import default_precision, faster, usable_accelerator
from depthbal.training.progress import EpochLines
from depthbal.training.resuming import (
    AtomicCheckpointIO,
    FiniteLoss,
    RandomStates,
    RunLogger,
    drop_rows_from,
)
from depthbal.training.runs import (
    CheckpointName,
    RunFolder,
    claim_run_folder,
    free_folder,
    require_claimable,
    run_name,
    run_record,
    save_prior,
)
from depthbal.training.settings import (
    build,
    make_parser,
    parse,
    plain,
    split_configs,
    with_checkpoint,
)
from depthbal.training.task import Task
from depthbal.training.tuning import trained_parameters

RUN_VARIABLE = "DEPTHBAL_RUN"  # tells processes that Lightning starts which folder the first took


def train(
    arguments: Sequence[str],
    out: str | None = None,
    overwrite: bool = False,
    resume: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> tuple[RunFolder, dict[str, Any] | None]:
    """Train, evaluate the last epoch, and write both into a run folder.

    ``arguments`` are ``--config NAME`` and settings, laid over ``config``, the content of one. The
    folder is ``out``, or a new one in ``runs``; ``resume`` goes on with a run in place. Returns the
    run, and what its metrics.json holds: None of a development run, and in processes but the first.
    """
    started = time.monotonic()
    parser = make_parser()
    if resume is None:
        settings = parse(parser, arguments, config)
        run = _choose_folder(arguments, out, overwrite)
    elif out or overwrite:
        raise ConfigError("--resume goes on with a run in place; leave out --out and --overwrite")
    else:
        run = RunFolder(resume)
        settings = parse(parser, arguments, _resumable(run, arguments))
    _settle(settings)
    last = run.checkpoint("last")
    content = read_checkpoint(last) if resume is not None and last.is_file() else None
    data, task = _build(parser, settings, content)
    trainer = _trainer(parser, settings, run, task)
    step = None if content is None else _resumed_step(run, task, trainer, content)
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    record = run_record(settings.seed_everything, name)
    if trainer.is_global_zero:
        data.prepare_data()
        data.setup("fit")  # bad data must not leave a run folder behind
        if data.label.range is not None:
            task.take_range(data.label.range)
        task.check_data(data)
        if step is None and task.weights_from is not None:
            task.take_weights(task.weights_from)  # what is refused must not cost the old run
        if step is None:
            # counted before there are other processes: an error here must not leave them waiting
            task.take_beyond(data.train_histogram())
        record["data"] = data.describe()
        if resume is None:
            claim_run_folder(run.path, overwrite)
        else:
            _note_session(run, record, step)
        with replacing(run.config) as temporary:
            text = yaml.safe_dump(plain(parser, settings), sort_keys=False, allow_unicode=True)
            temporary.write_text(text, encoding="utf-8")
        write_json(run.record, record)
        print(f"Run folder: {run.path}")
        print(f"Trains on {name} in {settings.trainer.precision}")
        for hint in faster(device, str(settings.trainer.precision)):
            print(f"hint: {hint}")
        print(f"Trained parameters: {trained_parameters(task.model)}")
    _fit(trainer, task, data, None if step is None else last)
    result = None
    if not settings.trainer.fast_dev_run:  # a development run leaves no checkpoint to evaluate
        done = int(read_checkpoint(last)["epoch"]) + 1 if last.is_file() else 0
        task.test_facts = {"checkpoint": "last", "epochs": done}
        trainer.test(task, datamodule=data, verbose=False)
        if trainer.is_global_zero:
            result = save_evaluation(task, data, run.path)
            record["duration_s"] = own = round(time.monotonic() - started, 1)
            earlier = sum(one.get("duration_s", 0.0) for one in record.get("earlier_sessions", []))
            write_json(run.record, {**record, "total_duration_s": round(earlier + own, 1)})
    if dist.is_available() and dist.is_initialized():
        dist.barrier()  # gloo aborts a process whose partner has left
        dist.destroy_process_group()
    return run, result


# ---- settings and objects ----


def _resumable(run: RunFolder, arguments: Sequence[str]) -> dict[str, Any]:
    """Return a run's config; refuse what cannot be changed in the middle, and runs without one."""
    for flag in arguments:
        if flag.startswith("-") and not flag.startswith(("--trainer.", "--data.")):
            raise ConfigError(
                f"--resume continues the training as it was, in place; of {flag} and the like only "
                "--trainer.KEY and --data.KEY can be changed"
            )
    run.require_run()
    source = run.read_record().get("converted_from")
    if source is not None:
        raise ConfigError(
            f"{run.path} was converted from the published checkpoint {source}: it can be evaluated "
            "and predicts, but holds no training to continue. For a new training that starts from "
            f"its weights: --config nyud2/mse --model.model.weights {source} --data.root FOLDER"
        )
    return dict(yaml.safe_load(run.config.read_text(encoding="utf-8")))


def _settle(settings: Namespace) -> None:
    """Settle seed and precision, also in config.yaml: a run is repeated and resumed with them."""
    if settings.seed_everything is not False:  # True draws one
        seed = None if settings.seed_everything is True else settings.seed_everything
        settings.seed_everything = seed_everything(seed, workers=True, verbose=False)
    trainer = settings.trainer
    trainer.accelerator = usable_accelerator(str(trainer.accelerator))
    trainer.precision = trainer.precision or default_precision(str(trainer.accelerator))
    limit = trainer.limit_test_batches
    if limit is not None and not (isinstance(limit, float) and limit == 1):  # 1 is one batch
        raise ConfigError(
            f"--trainer.limit_test_batches {limit} is not possible: a result is always that of the "
            "whole test split, so that results compare; fewer test images are other data"
        )


def _build(
    parser: ArgumentParser, settings: Namespace, content: Mapping[str, Any] | None
) -> tuple[LabelData, Task]:
    """Make data and task; the data first, before a network's weights are downloaded."""
    data: LabelData = build(parser, settings, "data")
    data.check_root()
    made_of = settings if content is None else with_checkpoint(settings, content)
    task: Task = build(parser, made_of, "model")
    task.settings = plain(parser, made_of)["model"]["init_args"]
    return data, task


def _trainer(parser: ArgumentParser, settings: Namespace, run: RunFolder, task: Task) -> Trainer:
    """Make a trainer that logs and saves into the run folder."""
    given = dict(build(parser, settings, "trainer"))
    bars = [one for one in _as_list(given["callbacks"]) if isinstance(one, ProgressBar)]
    own_bar = given["enable_progress_bar"] is not False and not bars and show_progress()
    given |= {
        "logger": [RunLogger(run.path), *_as_list(given["logger"])],
        "plugins": [AtomicCheckpointIO(), *_as_list(given["plugins"])],
        "callbacks": [
            LambdaCallback(on_fit_start=partial(_save_first_prior, run)),
            RandomStates(),
            FiniteLoss(),
            LearningRateMonitor(),
            SaveCheckpoint(run, "best", task.selection_metric),
            SaveCheckpoint(run, "last"),  # after "best", whose score it carries
            EpochLines(bar=own_bar),
            *([] if task.ema is None else [MovingAverage(task.ema)]),
            *_as_list(given["callbacks"]),
        ],
        "default_root_dir": run.path,
        "enable_progress_bar": bool(bars),
        "enable_model_summary": bool(given["enable_model_summary"]),
    }
    try:
        return Trainer(**given)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ConfigError(f"--trainer: {error}") from error


def _choose_folder(arguments: Sequence[str], out: str | None, overwrite: bool) -> RunFolder:
    if getattr(rank_zero_only, "rank", 0):
        path = out or os.environ.get(RUN_VARIABLE)
        if path is None:
            raise ConfigError("several processes must agree on the run folder; give --out DIR")
        return RunFolder(path)
    if out:
        require_claimable(Path(out), overwrite)
    else:
        names, _ = split_configs(arguments)
        out = str(free_folder(Path("runs"), run_name(names[-1]) if names else "train"))
    os.environ[RUN_VARIABLE] = os.path.abspath(out)
    return RunFolder(out)


def _note_session(run: RunFolder, record: dict[str, Any], step: int | None) -> None:
    """Note another session in a run folder, and drop the rows of an epoch that was cut off."""
    previous = run.read_record()
    known, found = ((one.get("data") or {}).get("fingerprint") for one in (previous, record))
    if known not in (None, found):
        warnings.warn(
            f"the training data are not those that {run.path} was started with (fingerprint "
            f"{found}, then {known}); the training goes on with the new ones, but its prior "
            "and its shots stay those of the old ones",
            stacklevel=2,
        )
    own = ("earlier_sessions", "total_duration_s")
    last = {key: value for key, value in previous.items() if key not in own}
    record["earlier_sessions"] = [*previous.get("earlier_sessions", []), last]
    if step is None:
        print(f"{run.path} has no checkpoint yet; training starts from the beginning")
    drop_rows_from(run.metrics_csv, step or 0)


def _resumed_step(run: RunFolder, task: Task, trainer: Trainer, content: dict[str, Any]) -> int:
    """Return the step to continue from, before anything in the run folder changes."""
    task.on_load_checkpoint(content)
    done, wanted = int(content["epoch"]) + 1, trainer.max_epochs
    if wanted is not None and 0 < wanted < done:
        raise ConfigError(
            f"{run.path} has trained {done} epochs already, more than --trainer.max_epochs "
            f"{wanted}; leave it out, or give a larger one"
        )
    if wanted == done and run.metrics.is_file():
        raise ConfigError(
            f"{run.path} is complete ({done} of {wanted} epochs, evaluated); to train on, give a "
            f"larger --trainer.max_epochs than {wanted}"
        )
    task.starts_from_checkpoint = True
    return int(content["global_step"])


# ---- the training itself ----


def _fit(trainer: Trainer, task: Task, data: LabelData, checkpoint: Path | None) -> None:
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
    except MisconfigurationException as error:
        raise ConfigError(str(error)) from error
    except RuntimeError as error:  # of any kind; that of EarlyStopping is a setting to mend
        if "conditioned on metric" not in str(error):
            raise
        raise ConfigError(f"--trainer.callbacks: {error}") from error
    except SystemExit as error:  # how Lightning ends after Ctrl-C
        path = trainer.default_root_dir
        print(f"stopped; continue with: depthbal train --resume {path}", file=sys.stderr)
        raise KeyboardInterrupt from error


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


# ---- what the callbacks of every training do ----


def _save_first_prior(run: RunFolder, trainer: Trainer, task: Any) -> None:
    """Write the prior when training starts; a resumed training keeps it."""
    if trainer.is_global_zero and not task.starts_from_checkpoint:
        save_prior(run, task)


class SaveCheckpoint(ModelCheckpoint):
    """Keep one checkpoint of a name, replaced after every epoch, or those that lower a metric."""

    def __init__(self, run: RunFolder, name: CheckpointName, monitor: str | None = None) -> None:
        super().__init__(
            dirpath=run.path / "checkpoints",
            filename=name,
            monitor=monitor,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless there is no validation split to choose by."""
        if self.monitor is None or self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score also where the run folder has moved since."""
        path = self.format_checkpoint_name({})
        scores = list(state_dict["best_k_models"].values())
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": path,
            "kth_best_model_path": path if scores else "",
            "best_k_models": {path: scores[0]} if scores else {},
        }
        super().load_state_dict({**state_dict, **moved})


class MovingAverage(WeightAveraging):
    """Average the weights exponentially, faster in the first steps; see `Task`."""

    def __init__(self, decay: float) -> None:
        def average(averages: Sequence[Tensor], weights: Sequence[Tensor], step: Tensor) -> None:
            share = 1 - min(decay, (1 + int(step)) / (10 + int(step)))
            for one, now in zip(averages, weights, strict=True):
                # constants stay exactly what they are
                one.lerp_(now, share) if one.is_floating_point() else one.copy_(now)

        super().__init__(multi_avg_fn=average)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average where the network will be trained."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
