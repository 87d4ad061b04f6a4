"""A training step never waits for a GPU, except where the loss's number is written down.

Most machines that test have no GPU. Two things need none: tensors on a pretended one have no
values, so that reading one is an error; and in a training on the CPU every read is caught in the
act. Left out there are the checks for NaN, which on a CPU read at once by design, and the logged
loss, of which another test shows that it is a number on the CPU whatever device trains.
"""

import sys
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from depthbal.losses import BNILoss, GAILoss, MSELoss
from depthbal.priors import Histogram
from depthbal.training import DepthTask
from depthbal.training.resuming import FiniteLoss, RandomStates
from tests.training.helpers import (
    QUIET,
    DropoutNet,
    fit_prior,
    logged,
    loss_of,
    move_to_pretended_gpu,
)

HISTOGRAM = Histogram([1.0, 2.0, 3.0, 4.0], [6, 3, 1])
EVERY = 5
CHECKS_FOR_NAN = {"resuming.py", "reduction.py", "base.py"}


@pytest.mark.parametrize(
    "make",
    [
        MSELoss,
        lambda: GAILoss(n_components=4, noise="learned"),
        lambda: GAILoss(n_components=4, noise="depth"),
        lambda: BNILoss(noise="learned"),
    ],
    ids=["MSE", "GAI", "GAI, noise by depth", "BNI"],
)
def test_the_loss_on_a_gpu_reads_no_value(make):
    task = DepthTask(DropoutNet(), make())
    fit_prior(task, HISTOGRAM)
    with FakeTensorMode():
        move_to_pretended_gpu(task)
        image = torch.empty(8, 3, 64, 96, device="cuda")
        depth = torch.empty(8, 1, 32, 48, device="cuda")
        loss = loss_of(task, {"image": image, "depth": depth})
        guard = FiniteLoss()
        guard.on_train_batch_end(None, task, {"loss": loss}, None, 0)
        assert loss.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            loss.item()  # else the test above could not fail


class Reads(TorchDispatchMode):
    """Collect the files of the calls that read values from tensors, innermost first."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[list[str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            files, shown, frame = [], None, sys._getframe()
            while frame is not None:
                files.append(frame.f_code.co_filename.rpartition("/")[2])
                if files[-1] == "result.py" and frame.f_code.co_name == "metrics":
                    shown = frame.f_locals["name"]  # what Lightning fetches for the progress bar
                frame = frame.f_back
            if shown != "train/loss_step" and not CHECKS_FOR_NAN & set(files):
                self.places.append(files)
        return func(*args, **(kwargs or {}))


class Watch(pl.Callback):
    """Count the reads of every training step, from its start to the next one's."""

    def __init__(self) -> None:
        self.reads = Reads()
        self.per_step: dict[int, int] = {}

    def on_train_start(self, trainer, pl_module) -> None:
        self.reads.__enter__()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._close(batch_idx)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._close(trainer.num_training_batches)
        self.reads.__exit__(None, None, None)

    def _close(self, step: int) -> None:
        self.per_step[step] = len(self.reads.places)
        self.reads.places.clear()


def test_the_logged_loss_is_a_number_on_the_cpu_whatever_device_trains(monkeypatch):
    task, logged = DepthTask(DropoutNet(), MSELoss()), {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
    task._trainer = SimpleNamespace(
        log_every_n_steps=1,
        global_step=1,
        should_stop=False,
        accumulate_grad_batches=1,
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
    )
    with FakeTensorMode():
        task.on_train_batch_end({"loss": torch.empty((), device="cuda")}, None, 0)
    assert logged["train/loss_step"].device.type == "cpu"


def sgd(groups) -> torch.optim.Optimizer:
    # Adam keeps its step count on the CPU, where it reads it
    return torch.optim.SGD(groups, lr=0.01)


def test_values_are_read_only_at_the_steps_that_are_logged(tmp_path):
    torch.manual_seed(0)
    task = DepthTask(DropoutNet(), GAILoss(n_components=4, noise="learned"), optimizer=sgd)
    fit_prior(task, HISTOGRAM)
    watch = Watch()
    depths = 1 + 3 * torch.rand(26, 1, 4, 4)
    samples = [{"image": torch.randn(3, 8, 8), "depth": depth} for depth in depths]
    trainer = pl.Trainer(
        max_epochs=1,
        logger=pl.loggers.CSVLogger(tmp_path),
        log_every_n_steps=EVERY,
        callbacks=[RandomStates(), FiniteLoss(), RichProgressBar(), watch],
        **QUIET,
    )
    trainer.fit(task, torch.utils.data.DataLoader(samples, batch_size=2))
    # keys are the steps done before
    quiet = {step: count for step, count in watch.per_step.items() if step % EVERY and step < 13}
    assert len(quiet) == 10
    assert not any(quiet.values()), quiet
    assert watch.per_step[EVERY] > 0  # or nothing would be counted


def test_every_steps_loss_is_logged_and_their_mean_after_the_epoch(finished_run):
    rows = [row for row in logged(finished_run) if row["epoch"] == "1"]  # a step per row
    assert any(row["train/noise_sigma"] for row in rows)
    steps = [float(row["train/loss_step"]) for row in rows if row["train/loss_step"]]
    (epoch,) = (float(row["train/loss_epoch"]) for row in rows if row["train/loss_epoch"])
    assert len(steps) == 3
    assert epoch == pytest.approx(sum(steps) / 3, rel=1e-5)
