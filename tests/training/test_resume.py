"""A training that was stopped goes on as if it had not been."""

import json
import multiprocessing
import random
import resource
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from depthbal.errors import CheckpointError, ConfigError, RunFolderError
from depthbal.models import SmpDepth
from depthbal.training.optimisation import default_precision
from depthbal.training.resuming import (
    AtomicCheckpointIO,
    FiniteLoss,
    RunLogger,
    TrainingError,
    collect_random_states,
    drop_rows_from,
    restore_random_states,
)
from tests.training.helpers import (
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
    unet,
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
    whole = train_tiny(config, tmp_path / "whole")
    cut = shutil.copytree(whole, tmp_path / "cut")
    shutil.rmtree(cut / "checkpoints")  # as a kill in the first epoch leaves it
    (cut / "metrics.json").unlink()
    resume(cut)
    assert "from the beginning" in capsys.readouterr().out
    assert same_weights(cut, whole)
    assert logged(cut) == logged(whole)


def test_more_epochs_may_be_asked_for_and_nothing_is_fitted_again(run):
    means = checkpoint_of(run)["state_dict"]["criterion._prior.means"]
    interrupt(run)
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


def other(old, new):
    """Return what puts another part into a run's settings."""

    def change(run):
        text = (run / "config.yaml").read_text()
        assert old in text
        (run / "config.yaml").write_text(text.replace(old, new).replace("n_components", "#"))

    return change


def truncate(run):
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])


def interrupt(run):  # in the middle of the training
    (run / "metrics.json").unlink()


THREE, COMPLETE = "--trainer.max_epochs=3", "is complete (2 of 2 epochs, evaluated)"
FEWER = "trained 2 epochs already, more than --trainer.max_epochs 1"


@pytest.mark.parametrize(
    ("arguments", "spoil", "message"),
    [
        ([], None, COMPLETE),
        (["--trainer.limit_test_batches=null"], None, COMPLETE),
        (["--trainer.limit_test_batches=1.0"], None, COMPLETE),
        (["--trainer.max_epochs=1"], None, FEWER),
        (["--trainer.max_epochs=1"], interrupt, FEWER),
        ([THREE, "--model.optimizer.lr=1"], None, "--model.optimizer.lr"),
        ([THREE, "--config=other.yaml"], None, "--config"),
        ([THREE, "--out=elsewhere"], None, "--out"),
        ([THREE, "--overwrite"], None, "--overwrite"),
        ([THREE], other("tu-test_resnet", "resnet18"), "another training"),
        ([THREE], other("losses.GAILoss", "losses.BNILoss"), "another training"),
        ([THREE], truncate, "last.ckpt"),
    ],
)
def test_a_run_that_cannot_go_on_so_is_left_as_it_is(run, arguments, spoil, message, capsys):
    if spoil is not None:
        spoil(run)
    before = files_of(run)
    assert command("train", "--resume", run, *arguments) == 2
    assert message in capsys.readouterr().err
    assert files_of(run) == before


def test_what_is_no_run_is_named(finished_run, tmp_path):
    file = finished_run / "checkpoints" / "last.ckpt"
    with pytest.raises(RunFolderError, match=rf"not a run folder.*holds it is {finished_run}$"):
        resume(file)
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(RunFolderError, match="not a run folder"):
            resume(place)


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
    weights, network = tmp_path / "encoder.pth", unet()
    torch.save(SmpDepth(**network["init_args"]).network.encoder.state_dict(), weights)
    config = tiny_config(tmp_path / "tiny.yaml", model={"model": network})
    options = ["--trainer.max_epochs=1", f"--model.model.weights={weights}"]
    run = train_tiny(config, tmp_path / "run", *options)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"encoder\.pth"):  # a new one is to start from it again
        train_tiny(config, run, *options, overwrite=True)
    resume(run, "--trainer.max_epochs", "2")
    assert checkpoint_of(run)["epoch"] == 1
    stored = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert stored["model"]["init_args"]["weights"] == str(weights)


# ---- checkpoints that are complete or absent, states, curves, and no NaN ----


@pytest.fixture
def full_disk():
    """Let no file grow beyond 100 kB, as if the disk were full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


class CtrlC:
    """Something in a checkpoint at which the user presses Ctrl-C."""

    def __reduce__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"weights": torch.ones(100), "stop": CtrlC()}, KeyboardInterrupt, None),
        ({"weights": torch.ones(100_000)}, CheckpointError, "free disk space"),
    ],
    ids=["Ctrl-C", "full disk"],
)
def test_an_interruption_or_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path, full_disk, content, error, message
):
    path, io = tmp_path / "checkpoints" / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1, "weights": torch.arange(5.0)}, path)
    with pytest.raises(error, match=message):
        io.save_checkpoint(content, path)
    content = io.load_checkpoint(path)
    assert (content["epoch"], content["weights"].tolist()) == (1, [0, 1, 2, 3, 4])
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def draw() -> list[float]:
    legacy = np.random.normal()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), legacy, torch.rand(()).item()]


def test_restored_states_repeat_all_random_numbers(tmp_path):
    draw()  # Python's and NumPy's normal draws keep half of a pair back
    torch.save(collect_random_states(), tmp_path / "states.pt")
    expected = draw()
    assert draw() != expected
    states = torch.load(tmp_path / "states.pt", weights_only=True)
    for _ in range(2):
        restore_random_states(states)
        assert draw() == expected


def test_a_second_logger_continues_the_file_without_a_cut_off_epoch_and_a_torn_row(tmp_path):
    path = tmp_path / "metrics.csv"
    drop_rows_from(path, 2)
    assert not path.exists()
    for step, row in enumerate(({"loss": 1.0}, {"loss": 0.5, "score": 3.0}, {"loss": 0.2})):
        logger = RunLogger(tmp_path)
        logger.log_metrics(row, step=step)
        logger.save()
    with path.open("a") as file:
        file.write("0.7,")
    drop_rows_from(path, 2)
    assert path.read_text().split() == ["loss,score,step", "1.0,,0", "0.5,3.0,1"]


TRAINER = SimpleNamespace(
    current_epoch=3,
    global_step=120,
    strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
)


def steps(guard: FiniteLoss, losses: list[torch.Tensor]) -> None:
    for index, loss in enumerate(losses):
        guard.on_train_batch_end(TRAINER, None, {"loss": loss}, None, index)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_stops_at_once_on_a_cpu(bad):
    steps(FiniteLoss(), [torch.tensor(-3.0)] * 10)  # negative losses are fine
    with pytest.raises(TrainingError, match=r"epoch 3, at step 120.*learning rate"):
        steps(FiniteLoss(), [torch.tensor(1.0), torch.tensor(bad)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_bad_loss_on_a_gpu_is_found_within_n_steps():
    fine, bad = torch.tensor(1.0).cuda(), torch.tensor(float("nan")).cuda()
    guard = FiniteLoss(every_n_steps=5)
    steps(guard, [fine, bad, fine, fine])
    with pytest.raises(TrainingError):
        guard.on_train_batch_end(TRAINER, None, {"loss": fine}, None, 4)
