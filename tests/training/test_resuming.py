"""Checkpoints that are complete or absent, states, curves, and no NaN."""

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
