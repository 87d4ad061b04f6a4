"""Checkpoints that are complete or absent, states, curves, and no NaN."""

import os
import random
import resource
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthbal.errors import CheckpointError
from depthbal.training.resuming import (
    AtomicCheckpointIO,
    FiniteLoss,
    RunLogger,
    TrainingError,
    collect_random_states,
    drop_rows_from,
    restore_random_states,
)

# ---- checkpoints ----


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "weights": torch.arange(5.0)}, path)
    return path


@pytest.fixture
def full_disk():
    """Let no file grow beyond 100 kB, as if the disk were full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def assert_untouched(path):
    content = AtomicCheckpointIO().load_checkpoint(path)
    assert (content["epoch"], content["weights"].tolist()) == (1, [0, 1, 2, 3, 4])
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_rest(saved, full_disk):
    with pytest.raises(CheckpointError, match="previous checkpoint is untouched"):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(100_000)}, saved)
    assert_untouched(saved)


@pytest.mark.parametrize("cut", [KeyboardInterrupt, OSError])
def test_an_interruption_while_writing_leaves_the_previous_checkpoint(saved, monkeypatch, cut):
    def write_half(checkpoint, file):
        file.write(b"half")
        raise cut

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, saved)
    assert_untouched(saved)


def test_a_checkpoint_with_code_in_it_is_not_opened(tmp_path):
    class Surprise:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"surprise": Surprise()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


# ---- random numbers ----


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


# ---- metrics.csv ----


def test_a_second_logger_continues_the_file(tmp_path):
    for step, row in enumerate(({"loss": 1.0}, {"loss": 0.5, "score": 3.0})):
        logger = RunLogger(tmp_path)
        logger.log_metrics(row, step=step)
        logger.save()
    lines = ["loss,score,step", "1.0,,0", "0.5,3.0,1"]
    assert (tmp_path / "metrics.csv").read_text().split() == lines


def test_rows_of_a_cut_off_epoch_and_a_torn_last_row_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    drop_rows_from(path, 2)
    assert not path.exists()
    path.write_text("loss,score,step\n1.0,,0\n0.9,2.0,1\n0.8,,2\n0.7,")
    drop_rows_from(path, 2)
    assert path.read_text().split() == ["loss,score,step", "1.0,,0", "0.9,2.0,1"]


# ---- NaN ----

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


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_epoch_end"])
def test_parameters_are_looked_at_before_validation_and_before_a_checkpoint(hook):
    network = torch.nn.Linear(2, 2)
    look = getattr(FiniteLoss(), hook)
    look(TRAINER, network)
    with torch.no_grad():
        network.weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="parameters"):
        look(TRAINER, network)
