"""Tiny trainings: a network with dropout and batch statistics, and a callback that kills."""

import os
import signal
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = REPOSITORY / "tools" / "train.py"


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


class KillOnce(pl.Callback):
    """Kill the process, as the system would, in the middle of an epoch; once."""

    def __init__(self, marker: str, epoch: int = 2, batch: int = 1) -> None:
        self.marker = Path(marker)
        self.epoch = epoch
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        here = trainer.current_epoch == self.epoch and batch_idx == self.batch
        if here and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def tiny_config(path: Path, **sections: dict) -> Path:
    """Write a config that trains in seconds; sections are merged into it."""
    config = {
        "trainer": {"max_epochs": 4, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1},
        "model": {
            "model": {"class_path": "tests.training.helpers.DropoutNet"},
            "criterion": {
                "class_path": "depthbal.losses.GAILoss",
                "init_args": {"n_components": 4, "noise": "learned", "label_range": [0.7, 10.0]},
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "lr_scheduler": {"class_path": "depthbal.training.schedules.WarmupCosine"},
        },
        "data": {
            "class_path": "depthbal.data.RoomsDataModule",
            "init_args": {
                "n_train": 12,
                "n_val": 4,
                "n_test": 4,
                "size": [24, 32],
                "batch_size": 4,
                "num_workers": 0,
            },
        },
    }
    for section, content in sections.items():
        config[section] = {**config.get(section, {}), **content}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def checkpoint_tensors(run: Path, name: str = "last") -> dict[str, Tensor]:
    """Return the weights of a run's checkpoint."""
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
