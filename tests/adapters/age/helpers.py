"""Tiny age regressions: grey pictures whose brightness tells an age roughly, and their configs."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from depthbal.adapters.age.application import AGE
from depthbal.adapters.age.data import LabelDataModule, SplitName
from depthbal.training.train import train

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "age"


class GreyImages:
    """Pictures of noise about a grey that stands for the age, a few years off."""

    def __init__(self, labels: NDArray[np.float64], seed: int) -> None:
        rng = np.random.default_rng(seed)
        looks_like = labels + 4 * rng.standard_normal(len(labels))
        noise = 8 * rng.standard_normal((len(labels), 32, 32, 3))
        grey = 2 * looks_like[:, None, None, None] + 40 + noise
        self.labels = labels
        self.images = grey.clip(0, 255).astype(np.uint8)

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"grey/{index}"

    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


class GreyAges(LabelDataModule):
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

    def labels(self, split: SplitName) -> NDArray[np.float64]:
        ages = np.arange(20.0, 60.0)
        counts = np.ceil(self.peak * np.exp((20 - ages) / 8)) if split == "train" else 1 + 0 * ages
        return np.repeat(ages, counts.astype(int))

    def source(self, split: SplitName) -> GreyImages:
        number = ["train", "val", "test"].index(split)
        return GreyImages(self.labels(split), 3 * self.picture_seed + number)


def tiny_config(path: Path, **sections: dict[str, Any]) -> Path:
    """Write a config that trains in seconds; sections are merged into it."""
    config: dict[str, Any] = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "precision": "32-true"},
        "model": {
            "model": {
                "class_path": "AgeRegressor",
                "init_args": {"library": "timm", "backbone": "test_resnet"},
            },
            "criterion": {"class_path": "L1Loss"},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.002}},
        },
        "data": {"class_path": f"{__name__}.GreyAges"},
    }
    for section, content in sections.items():
        config[section] = {**config.get(section, {}), **content}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def train_age(*arguments: str | Path) -> Path:
    """Train in this process; errors come as exceptions. Returns the run folder."""
    return train([str(argument) for argument in arguments], CONFIGS / "vanilla.yaml", AGE).path


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a run's last checkpoint."""
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state
