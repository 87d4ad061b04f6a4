"""Tiny age regressions: grey pictures whose brightness tells an age roughly."""

import hashlib

import numpy as np
import torch

from depthbal.adapters.age.data import LabelledData, LabelledImages
from depthbal.training.train import train

NETWORK = ["--model.model.library=timm", "--model.model.backbone=test_resnet"]
CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]


class GreyAges(LabelledData):
    """Ages 20 to 59, many young ones; 20 to 58 once each to validate and test, an odd number."""

    def __init__(self, peak: int = 25, padding: int = 2, flip: float = 0.5, seed: int = 0) -> None:
        super().__init__(
            batch_size=32, num_workers=0, image_size=32, padding=padding, flip=flip, seed=seed
        )
        self.peak = peak

    def labels(self, split):
        ages = torch.arange(20.0, 60.0 - (split != "train"), dtype=torch.float64)
        counts = torch.ceil(self.peak * torch.exp((20 - ages) / 8))
        return [ages.repeat_interleave(counts.long() if split == "train" else 1)]

    def dataset(self, split):
        labels = self.labels(split)[0]
        rng = np.random.default_rng(len(split))
        looks_like = labels.numpy() + 4 * rng.standard_normal(len(labels))
        noise = 8 * rng.standard_normal((len(labels), 32, 32, 3))
        images = (2 * looks_like[:, None, None, None] + 40 + noise).clip(0, 255).astype(np.uint8)
        names = [f"grey/{index}" for index in range(len(labels))]
        content = hashlib.sha256(images.tobytes()).hexdigest()
        return LabelledImages(self, split, images, names, content)


def train_age(out, *arguments):
    """Train in this process; errors come as exceptions. Returns the run folder."""
    run, _ = train([str(argument) for argument in arguments], out=str(out))
    return run.path


def train_grey(out, config, *arguments):
    """Train a tiny network by a shipped config."""
    data = [f"--data={__name__}.GreyAges", "--trainer.max_epochs=3"]
    return train_age(out, "--config", config, *data, *CPU, *NETWORK, *arguments)
