"""What the data of every application share: splits, labels, seeds, workers and loaders."""

import logging
import math
import os
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from depthbal.data.loader import EpochSampler, LateLoader, ShardSampler, single_threaded
from depthbal.errors import ConfigError
from depthbal.evaluation import DEPTH, Label, LabelBins
from depthbal.priors import Histogram

announce = rank_zero_only(logging.getLogger("depthbal.data").info)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class LabelData(LightningDataModule):
    """Feed training, validation and test samples in batches that depend on seed and epoch alone.

    A subclass says what there is: `dataset`, `labels` and `bins`. Items of its data sets are
    dictionaries with "index", and for reports "name" and "group" (what is resampled together);
    they are addressed by ``(epoch, index)`` in training and by ``index`` elsewhere, `PADDING`
    meaning a sample that counts nowhere (see `SeededDataset`).

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes; -1 chooses one per CPU up to 8, and none on a single CPU.
        seed: of shuffling.
    """

    label: Label = DEPTH
    """What is predicted; its range, where there is one, is that of histogram, loss and network."""
    histogram: Histogram | None = None
    """Of the training labels; that of a run, where the data are those of one."""

    collate: Any = None
    """Joins samples to a batch; None: PyTorch's own."""

    train_set: Any
    val_set: Any
    test_set: Any

    def __init__(self, batch_size: int = 16, num_workers: int = -1, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"expected batch_size of at least 1, got {batch_size}")
        self.batch_size, self.seed = batch_size, seed
        self.num_workers = num_workers if num_workers >= 0 else automatic_workers()
        self.train_set = self.val_set = self.test_set = None

    def dataset(self, split: Split) -> Dataset[Any] | None:
        """Return the samples of a split, or None; what is wrong with its files is a DataError."""
        raise NotImplementedError

    def labels(self, split: Split) -> Iterable[Tensor]:
        """Yield all labels of a split that count, in label units, in tensors of any shape."""
        raise NotImplementedError

    def bins(self) -> LabelBins:
        """Return the bins and shots of the evaluation."""
        raise NotImplementedError

    def check_root(self) -> None:
        """Check, before a network is built or downloaded, that there is something at all."""

    def setup(self, stage: str | None = None) -> None:
        """Build the splits that are missing; only the test split for stage "test"."""
        splits: tuple[Split, ...] = ("test",) if stage == "test" else ("test", "train", "val")
        for split in splits:
            if getattr(self, f"{split}_set") is None:
                setattr(self, f"{split}_set", self.dataset(split))

    def train_histogram(self) -> Histogram:
        """Return the histogram of the training labels: 100 bins over the label's range."""
        if self.histogram is None:
            if self.label.range is None:
                raise ConfigError(f"{type(self).__name__}.label needs a range for its histogram")
            low, high = self.label.range
            self.histogram = Histogram.regular(low, high, (high - low) / 100)
            for labels in self.labels("train"):
                self.histogram.update(labels)
        return self.histogram

    def fingerprint(self) -> str | None:
        """Return a digest of the training data, or None where nobody takes one."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are; "images" per split, "fingerprint" of training."""
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        return {
            "class": type(self).__name__,
            "label": self.label.name,
            "unit": self.label.unit,
            "images": {split: None if data is None else len(data) for split, data in sets.items()},
            "seed": self.seed,
            "fingerprint": self.fingerprint() if self.train_set is not None else None,
        }

    def describe_test(self) -> dict[str, Any]:
        """Return what the test data are; the training split need not be there."""
        facts = self.describe()
        facts.pop("fingerprint")
        return facts | {"images": facts["images"]["test"]}

    def input_spec(self) -> dict[str, Any]:
        """Return how an image must be prepared for a network trained on these data."""
        return {"short_side": None, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the shuffled training loader; a last batch of a single sample is left out."""
        train = self.built("train")
        sampler = EpochSampler(train, seed=self.seed)
        single = len(sampler) > self.batch_size > 1 and len(sampler) % self.batch_size == 1
        if single:  # batch normalisation has no variance over one sample
            announce(
                f"Every epoch leaves out 1 of {len(sampler)} samples (another one each time): "
                f"batches of {self.batch_size} would end with a batch of one"
            )
        return self.loader(train, sampler, drop_last=single)

    def val_dataloader(self) -> "DataLoader[Any] | list[DataLoader[Any]]":
        """Return the validation loader in order; an empty list without a validation split."""
        return self.loader(self.val_set, ShardSampler(self.val_set)) if self.val_set else []

    def test_dataloader(self) -> "DataLoader[Any]":
        """Return the test loader: every sample exactly once, in order."""
        return self.loader(self.built("test"), ShardSampler(self.test_set))

    def built(self, split: Split) -> Any:
        """Return the samples of a split that `setup` has built."""
        if (samples := getattr(self, f"{split}_set")) is None:
            raise ConfigError(f"the {split} split is not built yet; call setup() first")
        return samples

    def loader(self, dataset: Any, sampler: Any, drop_last: bool = False) -> "DataLoader[Any]":
        """Return a loader of batches of samples in the order of a sampler."""
        # features of a frozen network are in memory already
        workers = self.num_workers if getattr(dataset, "features", None) is None else 0
        return LateLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            drop_last=drop_last,
            collate_fn=self.collate,
            worker_init_fn=single_threaded,
        )


def round_width(labels: NDArray[np.float64]) -> float:
    """Return 1, 2 or 5 times a power of ten of which about 100 fit into the range of labels."""
    wanted = float(np.ptp(labels)) / 100 or 1.0
    power = 10.0 ** math.floor(math.log10(wanted))
    width = power * min((1, 2, 5, 10), key=lambda step: abs(math.log(step * power / wanted)))
    return max(1.0, width) if (labels == labels.round()).all() else width


def automatic_workers() -> int:
    """Return one loader process per CPU this process may use, up to 8, and 0 on a single CPU."""
    usable = getattr(os, "sched_getaffinity", None)
    cpus = len(usable(0)) if usable is not None else (os.cpu_count() or 1)
    return 0 if cpus == 1 else min(cpus, 8)
