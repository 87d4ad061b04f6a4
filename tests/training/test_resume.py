import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from depthbal.data import DepthDataModule
from depthbal.errors import CheckpointError, ConfigError
from depthbal.models import SmpDepth
from depthbal.training.precision import default_precision
from tests.training.helpers import (
    REPOSITORY,
    SMALL_UNET,
    TOOLS,
    KillOnce,
    callback,
    checkpoint_of,
    exit_code,
    same_weights,
    tiny_config,
    train_tiny,
)

DROPOUT_NET = {"class_path": "tests.training.helpers.DropoutNet"}
STEP_LR = {
    "class_path": "torch.optim.lr_scheduler.StepLR",
    "init_args": {"step_size": 1, "gamma": 0.5},
}


def command(*arguments: str) -> int:
    """Run tools/train.py in a process of its own and return its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(TOOLS / "train.py"), *arguments]
    return subprocess.run(line, env=environment, capture_output=True, timeout=120).returncode


def resume(run, *arguments: str) -> None:
    from depthbal.training.train import train

    train(["--resume", str(run), *arguments], run / "config.yaml")


def logged(run) -> list[dict]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("schedule", "workers"),
    [("depthbal.training.schedules.WarmupCosine", 0), (STEP_LR, 2)],
    ids=["step-wise schedule", "epoch-wise schedule and loader processes"],
)
def test_a_killed_run_resumes_to_the_weights_of_the_uninterrupted_one(tmp_path, schedule, workers):
    marker = tmp_path / "killed"
    trainer = {"max_epochs": 4, "accelerator": "cpu", "log_every_n_steps": 1}
    config = tiny_config(
        tmp_path / "tiny.yaml",
        trainer={**trainer, **callback(KillOnce, marker=str(marker), epoch=2, batch=1)},
        model={"model": DROPOUT_NET, "lr_scheduler": schedule},
    )
    workers = f"--data.num_workers={workers}"
    killed, whole = tmp_path / "killed_run", tmp_path / "whole_run"
    assert command("--config", str(config), "--out", str(killed), workers) == -9
    assert checkpoint_of(killed)["epoch"] == 1
    assert command("--resume", str(killed)) == 0
    train_tiny(config, whole, workers)  # the marker is there: nobody kills this one
    assert same_weights(killed, whole)
    assert logged(killed) == logged(whole)


def test_a_run_that_never_finished_an_epoch_starts_again(tmp_path, capsys):
    marker = tmp_path / "killed"
    trainer = {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1}
    config = tiny_config(
        tmp_path / "tiny.yaml",
        trainer={**trainer, **callback(KillOnce, marker=str(marker), epoch=0, batch=2)},
        model={"model": DROPOUT_NET},
    )
    assert command("--config", str(config), "--out", str(tmp_path / "run")) == -9
    resume(tmp_path / "run")
    assert "from the beginning" in capsys.readouterr().out
    train_tiny(config, tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


def test_more_epochs_may_be_asked_for_on_resume(run):
    resume(run, "--trainer.max_epochs", "3")
    assert checkpoint_of(run)["epoch"] == 2
    epochs = [row["epoch"] for row in logged(run) if row["val/rmse_bins"]]
    assert epochs == ["0", "1", "2"]
    # the longer training is what the folder now describes
    with pytest.raises(ConfigError, match=r"3 of 3 epochs"):
        resume(run)


def test_resume_never_refits(run, monkeypatch):
    before = checkpoint_of(run)["state_dict"]["criterion._prior.means"]
    histogram = (run / "histogram.json").read_text()
    monkeypatch.setattr(DepthDataModule, "train_histogram", lambda *_: pytest.fail("refitted"))
    resume(run, "--trainer.max_epochs", "3")
    assert checkpoint_of(run)["state_dict"]["criterion._prior.means"].equal(before)
    assert (run / "histogram.json").read_text() == histogram


@pytest.mark.parametrize(
    ("ours", "theirs"), [("mobilenet_v2", "resnet18"), ("losses.GAILoss", "losses.BNILoss")]
)
def test_a_checkpoint_of_another_training_is_refused(run, ours, theirs):
    config = (run / "config.yaml").read_text()
    assert ours in config
    (run / "config.yaml").write_text(config.replace(ours, theirs).replace("n_components", "#"))
    with pytest.raises(CheckpointError, match="another training"):
        resume(run)


def test_a_truncated_checkpoint_is_named(run, capsys):
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    assert exit_code(run / "config.yaml", "--resume", str(run)) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["--out=elsewhere", "--overwrite", "--model.optimizer.lr=1", "--config=other.yaml"]
)
def test_what_a_resumed_training_cannot_change_is_refused(run, setting):
    with pytest.raises(ConfigError, match=setting.split("=")[0]):
        resume(run, setting)


def test_a_moved_run_is_resumed_where_it_is_and_knows_its_best_epoch(run, tmp_path):
    moved = shutil.move(run, tmp_path / "moved")
    content = checkpoint_of(moved)
    (state,) = (s for key, s in content["callbacks"].items() if "val/rmse_bins" in key)
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(0.0))
    torch.save(content, moved / "checkpoints" / "last.ckpt")  # nothing beats an error of 0
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    resume(moved, "--trainer.max_epochs", "3")
    assert checkpoint_of(moved)["epoch"] == 2
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best
    assert not run.exists()


def test_a_resume_that_cannot_start_changes_nothing(run):
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    before = {name: (run / name).read_bytes() for name in ("config.yaml", "versions.json")}
    with pytest.raises(CheckpointError):
        resume(run, "--trainer.max_epochs", "3")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_resume_needs_no_weight_file_and_still_says_where_training_came_from(tmp_path):
    weights = tmp_path / "encoder.pth"
    encoder = SmpDepth(**SMALL_UNET["init_args"]).network.encoder
    torch.save(encoder.state_dict(), weights)
    config = tiny_config(tmp_path / "tiny.yaml", trainer={"max_epochs": 1})
    run = train_tiny(config, tmp_path / "run", f"--model.model.init_args.weights={weights}")
    weights.unlink()
    resume(run, "--trainer.max_epochs", "2")
    assert checkpoint_of(run)["epoch"] == 1
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored["model"]["model"]["init_args"]["weights"] == str(weights)


def test_versions_keep_every_session(run):
    first = json.loads((run / "versions.json").read_text())
    for epochs in ("3", "4"):
        resume(run, "--trainer.max_epochs", epochs)
    versions = json.loads((run / "versions.json").read_text())
    assert versions["earlier_sessions"][0].items() <= first.items()
    assert len(versions["earlier_sessions"]) == 2
    durations = [one["duration_s"] for one in [*versions["earlier_sessions"], versions]]
    assert versions["total_duration_s"] == pytest.approx(sum(durations), abs=0.11)
    assert not any("earlier_sessions" in one for one in versions["earlier_sessions"])


def test_resume_warns_where_the_training_data_have_changed(run, recwarn):
    resume(run, "--trainer.max_epochs", "3")
    assert not any("training data" in str(one.message) for one in recwarn)
    with pytest.warns(UserWarning, match="training data are not those.*fingerprint"):
        resume(run, "--trainer.max_epochs", "4", "--data.n_train", "16")


def test_the_precision_is_written_down_and_kept_on_resume(run, monkeypatch):
    stored = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]
    assert stored == default_precision("cpu")
    monkeypatch.setattr("depthbal.training.cli.default_precision", lambda *_: "64-true")
    resume(run, "--trainer.max_epochs", "3")
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == stored
    weights = checkpoint_of(run)["state_dict"].values()
    assert not any(value.dtype == torch.float64 for value in weights if value.ndim == 4)


def test_a_complete_run_is_left_as_it_is(run):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match=r"is complete \(2 of 2 epochs, evaluated\)"):
        resume(run)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
