"""Tiny trainings: a network with dropout and batch statistics, and callbacks that disturb."""

import csv
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn

from depthbal.commands import main
from depthbal.data import RoomsDataModule
from depthbal.priors import Histogram
from depthbal.training.train import train

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / "tools"
CONFIGS = REPOSITORY / "depthbal" / "configs"

SIZES = {"n_train": 12, "n_val": 4, "n_test": 4, "size": [24, 32], "num_workers": 0}
ROOMS = {"class_path": "depthbal.data.RoomsDataModule", "init_args": {**SIZES, "batch_size": 4}}
GAI = {
    "class_path": "depthbal.losses.GAILoss",
    "init_args": {"n_components": 4, "noise": "learned"},
}
MSE = {"class_path": "depthbal.losses.MSELoss", "init_args": {}}
QUIET = {  # of a trainer that leaves nothing behind
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
DROPOUT_NET = {"class_path": "tests.training.helpers.DropoutNet"}
STEP_LR = {
    "class_path": "torch.optim.lr_scheduler.StepLR",
    "init_args": {"step_size": 1, "gamma": 0.5},
}


class DropoutNet(nn.Module):
    """A network whose training depends on random numbers and running statistics."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout2d(0.5),
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def initialise_bias(self, depth_m: float) -> None:
        nn.init.constant_(self.layers[-1].bias, depth_m)


class Changed:
    """A split of data whose depth maps are changed by their index."""

    def __init__(self, source, change) -> None:
        self.source, self.change = source, change

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int):
        image, depth = self.source.load(index)
        return image, self.change(index, depth)


class StopOnce(pl.Callback):
    """Stop in the middle of the second epoch, once: by Ctrl-C, or killed as by the system."""

    def __init__(self, marker: str, kill: bool = False) -> None:
        self.marker, self.kill = Path(marker), kill

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1 and not self.marker.exists():
            self.marker.touch()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


class Poison(pl.Callback):
    """Make a weight NaN after the last batch of the second epoch, when its loss was still fine."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and batch_idx == trainer.num_training_batches - 1:
            with torch.no_grad():
                next(pl_module.model.parameters()).fill_(float("nan"))


def unet(**init_args: object) -> dict:
    """Return the section of a network that is trained and exported in no time."""
    small: dict = {"encoder": "tu-test_resnet"}
    small["arch_args"] = {"encoder_depth": 4, "decoder_channels": [16, 8, 8, 4]}
    return {"class_path": "depthbal.models.SmpDepth", "init_args": {**small, **init_args}}


def callback(cls: type, **init_args) -> dict:
    """Return a trainer section that adds a callback of this file."""
    return {"callbacks": [{"class_path": f"{__name__}.{cls.__name__}", "init_args": init_args}]}


def tiny_config(path: Path, **sections: dict) -> Path:
    """Write a config that trains in a second; sections are merged into it.

    Those of "model" are merged into the arguments of the depth task.
    """
    model = {
        "model": DROPOUT_NET,
        "criterion": GAI,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        "lr_scheduler": {"class_path": "depthbal.training.schedules.WarmupCosine"},
        **sections.pop("model", {}),
    }
    config = {
        "trainer": {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1},
        "model": {"class_path": "depthbal.training.DepthTask", "init_args": model},
        "data": ROOMS,
    }
    for section, content in sections.items():
        config[section] = {**config.get(section, {}), **content}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def train_tiny(config: Path, out: Path, *overrides: str, overwrite: bool = False) -> Path:
    """Train in this process; errors come as exceptions."""
    train(["--config", str(config), *overrides], str(out), overwrite)
    return out


def resume(run: Path, *overrides: str) -> None:
    """Go on with a run in this process."""
    train(list(overrides), resume=str(run))


def command(name: str, *arguments: object) -> int:
    """Run a command in this process, as its tool does, and return its exit code."""
    return main(name, list(map(str, arguments)))


def checkpoint_of(run: Path, name: str = "last") -> dict:
    """Return the whole content of a run's checkpoint, loaded without running code."""
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def change_checkpoint(run: Path, name: str = "last", **values: float) -> None:
    """Set entries of a checkpoint's state, those whose name ends so, to one value."""
    content = checkpoint_of(run, name)
    for key, value in content["state_dict"].items():
        for ending, number in values.items():
            if key.endswith(ending.replace("__", ".")):
                value.fill_(number)
    torch.save(content, run / "checkpoints" / f"{name}.ckpt")


def same_weights(first: Path, second: Path) -> bool:
    """Whether the last checkpoints of two runs hold the same weights, bit by bit."""
    one, two = (checkpoint_of(run)["state_dict"] for run in (first, second))
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def metrics_of(folder: Path) -> dict:
    """Return the content of metrics.json."""
    return json.loads((folder / "metrics.json").read_text())


def logged(run: Path) -> list[dict]:
    """Return the rows of metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pretend_errors(run: Path, *errors: float) -> None:
    """Write these errors on validation into metrics.csv, one per epoch, as of a trained network."""
    rows = logged(run)
    for row in rows:
        row["val/rmse"] = row["val/rmse"] and str(errors[int(row["epoch"])])
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def files_of(folder: Path) -> dict[Path, bytes]:
    """Return the content of every file in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rooms_of_the_test() -> list:
    """Return image and depth of the tiny trainings' test split."""
    data = RoomsDataModule(**SIZES)
    data.setup("test")
    return [data.test_set.source.load(index) for index in range(SIZES["n_test"])]


def in_eigen_crop(depth: np.ndarray) -> np.ndarray:
    """Return which pixels of a test room Eigen's protocol scores."""
    inside = np.zeros(depth.shape, dtype=bool)
    inside[2:24, 2:30] = True  # [45:471, 41:601] of 480 x 640, at a twentieth
    return inside & (depth > 1e-3) & (depth < 10)


def fit_prior(task: pl.LightningModule, histogram: Histogram) -> None:
    """Give a task the training labels' histogram, as a training does before its first step."""
    strategy = SimpleNamespace(broadcast=lambda value: value)
    task._trainer = SimpleNamespace(is_global_zero=True, strategy=strategy)
    task.fit_prior(SimpleNamespace(train_histogram=lambda: histogram))
    task._trainer = None


def loss_of(task: pl.LightningModule, batch: dict) -> Tensor:
    """Return the loss of a training step."""
    return task.training_loss(task.predict(batch), batch)


def move_to_pretended_gpu(task: nn.Module) -> None:
    """Put parameters and buffers on a CUDA device that is not there; inside a FakeTensorMode.

    Such tensors have shapes, types and strides but no values: whoever asks for one, and would so
    wait for a GPU, gets an error.
    """
    for module in task.modules():
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is None:
                    continue
                there = torch.empty_strided(
                    value.shape, value.stride(), dtype=value.dtype, device="cuda"
                )
                store[name] = nn.Parameter(there) if store is module._parameters else there
