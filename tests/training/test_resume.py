"""A training that was stopped goes on as if it had not been."""

import json
import multiprocessing
import shutil

import pytest
import torch
import yaml

from depthbal.errors import CheckpointError, ConfigError, RunFolderError
from depthbal.models import SmpDepth
from depthbal.training.optimisation import default_precision
from tests.training.helpers import (
    SMALL_UNET,
    STEP_LR,
    StopOnce,
    callback,
    checkpoint_of,
    command,
    files_of,
    logged,
    resume,
    same_weights,
    tiny_config,
    train_tiny,
)


def in_a_process(*arguments: object) -> int | None:
    """Run a command in a process of its own and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=command, args=arguments)
    process.start()
    process.join(240)
    return process.exitcode


@pytest.mark.parametrize("kill", [False, True], ids=["Ctrl-C", "kill -9"])
def test_a_stopped_run_resumes_to_the_weights_of_the_uninterrupted_one(tmp_path, capsys, kill):
    stop = callback(StopOnce, marker=str(tmp_path / "stopped"), kill=kill)
    trainer = {"max_epochs": 3, "accelerator": "cpu", "log_every_n_steps": 1, **stop}
    schedule = STEP_LR if kill else {"class_path": "depthbal.training.schedules.WarmupCosine"}
    config = tiny_config(tmp_path / "tiny.yaml", trainer=trainer, model={"lr_scheduler": schedule})
    workers = "--data.num_workers=2" if kill else "--data.num_workers=0"
    stopped, whole = tmp_path / "stopped_run", tmp_path / "whole_run"
    line = ["--config", config, "--out", stopped, workers]
    if kill:
        assert in_a_process("train", *line) == -9
    else:
        assert command("train", *line) == 130
        assert f"--resume {stopped}" in capsys.readouterr().err
    assert checkpoint_of(stopped)["epoch"] == 0
    assert len(logged(stopped)) > 2  # rows of the cut-off epoch
    resume(stopped)
    train_tiny(config, whole, workers)  # the marker is there: nobody stops this one
    assert same_weights(stopped, whole)
    assert logged(stopped) == logged(whole)


def test_a_run_that_never_finished_an_epoch_starts_again(tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.yaml", trainer={"max_epochs": 1})
    whole, cut = (train_tiny(config, tmp_path / name) for name in ("whole", "cut"))
    shutil.rmtree(cut / "checkpoints")  # as a kill in the first epoch leaves it
    (cut / "metrics.json").unlink()
    resume(cut)
    assert "from the beginning" in capsys.readouterr().out
    assert same_weights(cut, whole)
    assert logged(cut) == logged(whole)


def test_more_epochs_may_be_asked_for_and_nothing_is_fitted_again(run):
    means = checkpoint_of(run)["state_dict"]["criterion._prior.means"]
    prior = (run / "prior.json").read_text()
    with pytest.warns(UserWarning, match=r"training data are not those.*fingerprint"):
        resume(run, "--trainer.max_epochs", "3", "--data.n_train", "16")
    content = checkpoint_of(run)
    assert content["epoch"] == 2
    assert content["state_dict"]["criterion._prior.means"].equal(means)
    assert (run / "prior.json").read_text() == prior
    assert content["depthbal"]["histogram"] == json.loads(prior)["histogram"]
    epochs = [row["epoch"] for row in logged(run) if row["val/rmse_bins"]]
    assert epochs == ["0", "1", "2"]
    # the longer training is what the folder now describes
    with pytest.raises(ConfigError, match=r"3 of 3 epochs"):
        resume(run)


def test_a_complete_run_is_left_as_it_is(finished_run):
    before = files_of(finished_run)
    limits = [f"--trainer.limit_test_batches={limit}" for limit in ("null", "1.0")]
    for setting in ([], limits[:1], limits[1:]):
        with pytest.raises(ConfigError, match=r"is complete \(2 of 2 epochs, evaluated\)"):
            resume(finished_run, *setting)
    assert files_of(finished_run) == before


@pytest.mark.parametrize(
    ("ours", "theirs"), [("mobilenet_v2", "resnet18"), ("losses.GAILoss", "losses.BNILoss")]
)
def test_a_checkpoint_of_another_training_is_refused(run, ours, theirs):
    config = (run / "config.yaml").read_text()
    assert ours in config
    (run / "config.yaml").write_text(config.replace(ours, theirs).replace("n_components", "#"))
    with pytest.raises(CheckpointError, match="another training"):
        resume(run)


def test_a_resume_that_cannot_start_names_the_checkpoint_and_changes_nothing(run, capsys):
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    before = files_of(run)
    assert command("train", "--resume", run, "--trainer.max_epochs", "3") == 2
    assert str(path) in capsys.readouterr().err
    assert files_of(run) == before


def test_what_is_no_run_is_named(finished_run, tmp_path):
    file = finished_run / "checkpoints" / "last.ckpt"
    with pytest.raises(RunFolderError, match=rf"not a run folder.*holds it is {finished_run}$"):
        resume(file)
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(RunFolderError, match="not a run folder"):
            resume(place)


@pytest.mark.parametrize(
    "setting", ["--model.optimizer.lr=1", "--config=other.yaml", "--out=elsewhere", "--overwrite"]
)
def test_what_a_resumed_training_cannot_change_is_refused(finished_run, setting, capsys):
    before = files_of(finished_run)
    assert command("train", "--resume", finished_run, "--trainer.max_epochs=3", setting) == 2
    assert setting.split("=")[0] in capsys.readouterr().err
    assert files_of(finished_run) == before


@pytest.mark.parametrize("evaluated", [True, False])
def test_fewer_epochs_than_are_done_are_refused_before_anything_changes(run, capsys, evaluated):
    if not evaluated:  # as an interruption in the middle of the training leaves it
        (run / "metrics.json").unlink()
    before = files_of(run)
    assert command("train", "--resume", run, "--trainer.max_epochs", 1) == 2
    assert "trained 2 epochs already, more than --trainer.max_epochs 1" in capsys.readouterr().err
    assert files_of(run) == before
    resume(run, "--trainer.max_epochs", "3")
    assert checkpoint_of(run)["epoch"] == 2


def test_a_run_from_a_gpu_resumes_on_a_cpu_in_its_own_precision(run, monkeypatch):
    def stored():
        return yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]

    assert stored() == default_precision("cpu")
    content = checkpoint_of(run)
    for group in content["optimizer_states"][0]["param_groups"]:
        group["fused"] = True
    torch.save(content, run / "checkpoints" / "last.ckpt")
    monkeypatch.setattr("depthbal.training.train.default_precision", lambda *_: "64-true")
    resume(run, "--trainer.max_epochs", "3")
    content = checkpoint_of(run)
    assert [g["fused"] for g in content["optimizer_states"][0]["param_groups"]] == [None, None]
    assert stored() == default_precision("cpu")
    weights = content["state_dict"].values()
    assert not any(value.dtype == torch.float64 for value in weights if value.ndim == 4)


def test_a_moved_run_is_resumed_where_it_is_knows_its_best_epoch_and_its_sessions(
    run, tmp_path, recwarn
):
    first = json.loads((run / "run.json").read_text())
    moved = shutil.move(run, tmp_path / "moved")
    content = checkpoint_of(moved)
    (state,) = (s for key, s in content["callbacks"].items() if "val/rmse_bins" in key)
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(0.0))
    torch.save(content, moved / "checkpoints" / "last.ckpt")  # nothing beats an error of 0
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    resume(moved, "--trainer.max_epochs", "3")
    resume(moved, "--trainer.max_epochs", "4")
    assert checkpoint_of(moved)["epoch"] == 3
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best
    assert not run.exists()
    assert not any("training data" in str(one.message) for one in recwarn)
    record = json.loads((moved / "run.json").read_text())
    sessions = record["earlier_sessions"]
    assert sessions[0].items() <= first.items()
    assert len(sessions) == 2
    assert not any("earlier_sessions" in one for one in sessions)
    total = sum(one["duration_s"] for one in [*sessions, record])
    assert record["total_duration_s"] == pytest.approx(total, abs=0.11)


def test_resume_needs_no_weight_file_and_still_says_where_training_came_from(tmp_path):
    weights = tmp_path / "encoder.pth"
    torch.save(SmpDepth(**SMALL_UNET["init_args"]).network.encoder.state_dict(), weights)
    config = tiny_config(tmp_path / "tiny.yaml", model={"model": SMALL_UNET})
    options = ["--trainer.max_epochs=1", f"--model.model.weights={weights}"]
    run = train_tiny(config, tmp_path / "run", *options)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"encoder\.pth"):  # a new one is to start from it again
        train_tiny(config, run, *options, overwrite=True)
    resume(run, "--trainer.max_epochs", "2")
    assert checkpoint_of(run)["epoch"] == 1
    stored = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert stored["model"]["init_args"]["weights"] == str(weights)
