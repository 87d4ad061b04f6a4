"""Tiny age regressions: grey pictures whose brightness tells an age roughly, and their configs."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from depthbal.adapters.age.data import LabelledData, LabelledImages
from depthbal.training.train import train

NETWORK = ["--model.model.library=timm", "--model.model.backbone=test_resnet"]


class GreyAges(LabelledData):
    """Ages 20 to 59, many young ones; validation and test have as many of each age."""

    def __init__(
        self,
        picture_seed: int = 0,
        peak: int = 25,
        padding: int = 2,
        flip: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=32, num_workers=0, image_size=32, padding=padding, flip=flip, seed=seed
        )
        self.picture_seed, self.peak = picture_seed, peak

    def labels(self, split):
        ages = torch.arange(20.0, 60.0, dtype=torch.float64)
        counts = torch.ceil(self.peak * torch.exp((20 - ages) / 8))
        return [ages.repeat_interleave(counts.long() if split == "train" else 1)]

    def dataset(self, split):
        labels = self.labels(split)[0]
        rng = np.random.default_rng((self.picture_seed, len(split)))
        looks_like = labels.numpy() + 4 * rng.standard_normal(len(labels))
        noise = 8 * rng.standard_normal((len(labels), 32, 32, 3))
        images = (2 * looks_like[:, None, None, None] + 40 + noise).clip(0, 255).astype(np.uint8)
        names = [f"grey/{index}" for index in range(len(labels))]
        content = hashlib.sha256(images.tobytes()).hexdigest()
        return LabelledImages(self, split, images, names, content)


class OddAges(GreyAges):
    """As many validation images as two processes cannot share evenly: one batch is padded."""

    def labels(self, split):
        (labels,) = super().labels(split)
        return [labels if split == "train" else labels[:-1]]


def tiny_config(path: Path, **data: Any) -> Path:
    """Write a config that trains in seconds."""
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "precision": "32-true"},
        "model": {
            "class_path": "depthbal.adapters.age.AgeTask",
            "init_args": {
                "model": {
                    "class_path": "depthbal.adapters.age.AgeRegressor",
                    "init_args": {"library": "timm", "backbone": "test_resnet"},
                },
                "criterion": {"class_path": "depthbal.losses.L1Loss"},
                "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.002}},
            },
        },
        "data": {"class_path": f"{__name__}.GreyAges", **data},
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def train_age(out: Path, *arguments: object) -> Path:
    """Train in this process; errors come as exceptions. Returns the run folder."""
    run, _ = train([str(argument) for argument in arguments], out=str(out))
    return run.path


def retrain(out: Path, base: Path, *arguments: object, config: str = "age/rrt_gai") -> Path:
    """Re-train the head of a tiny run by a shipped config."""
    data = ["--data", f"{__name__}.GreyAges", "--trainer.accelerator=cpu"]
    more = ["--trainer.precision=32-true", "--trainer.max_epochs=3", *NETWORK]
    arguments = (*data, *more, f"--model.weights_from={base}", *arguments)
    return train_age(out, "--config", config, *arguments)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a run's last checkpoint."""
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state
