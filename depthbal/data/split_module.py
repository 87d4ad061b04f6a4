"""What the data modules of all applications share: seeds, workers and the loaders of the splits."""

import logging
import os
from collections.abc import Sized
from typing import Any, Generic, TypeVar

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from depthbal.data.loader import LateLoader, single_threaded
from depthbal.data.sampler import EpochSampler, ShardSampler
from depthbal.errors import ConfigError

announce = rank_zero_only(logging.getLogger("depthbal.data").info)

_MAX_WORKERS = 8

Split = TypeVar("Split", bound=Dataset[Any])


class SplitDataModule(LightningDataModule, Generic[Split]):
    """Feed training, validation and test samples in batches that depend on seed and epoch alone.

    A subclass fills `train_set`, `val_set` (None without one) and `test_set` in `setup`. Their
    items are addressed by ``(epoch, index)`` in training and by ``index`` elsewhere, -1 meaning a
    sample that counts nowhere (see `EpochSampler` and `ShardSampler`).

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes; -1 chooses one per CPU up to 8, and none on a single CPU.
        seed: of shuffling.

    Raises:
        ConfigError: a batch size below 1.
    """

    train_set: Split | None
    val_set: Split | None
    test_set: Split | None

    def __init__(self, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"expected batch_size of at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.num_workers = num_workers if num_workers >= 0 else automatic_workers()
        self.seed = seed
        self.train_set = self.val_set = self.test_set = None

    def check_root(self) -> None:
        """Check, within moments, that there is something where the data should be.

        Called before a network is built, which may have to be downloaded; `setup` checks the rest.

        Raises:
            DataError: there is not; names the place and the setting.
        """

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are; "images" per split, "fingerprint" of training."""
        raise NotImplementedError

    def describe_test(self) -> dict[str, Any]:
        """Return what the test data are; the training split need not be there."""
        facts = self.describe()
        facts["images"] = facts["images"]["test"]
        facts.pop("fingerprint")
        return facts

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the shuffled training loader; a last batch of a single sample is left out."""
        train = self._require(self.train_set, "training")
        sampler = EpochSampler(_sized(train), seed=self.seed)
        single = len(sampler) > self.batch_size > 1 and len(sampler) % self.batch_size == 1
        if single:  # batch normalisation has no variance over one sample
            announce(
                f"Every epoch leaves out 1 of {len(sampler)} samples (another one each time): "
                f"batches of {self.batch_size} would end with a batch of one"
            )
        return self._loader(train, sampler, drop_last=single)

    def val_dataloader(self) -> "DataLoader[Any] | list[DataLoader[Any]]":
        """Return the validation loader in order; an empty list without a validation split."""
        if self.val_set is None:
            self._require(self.train_set, "validation")
            return []
        return self._loader(self.val_set, ShardSampler(_sized(self.val_set)))

    def test_dataloader(self) -> "DataLoader[Any]":
        """Return the test loader: every sample exactly once, in order."""
        test = self._require(self.test_set, "test")
        return self._loader(test, ShardSampler(_sized(test)))

    def _loader(self, dataset: Split, sampler: Any, drop_last: bool = False) -> "DataLoader[Any]":
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
            worker_init_fn=single_threaded,
        )

    @staticmethod
    def _require(dataset: Split | None, split: str) -> Split:
        if dataset is None:
            raise ConfigError(f"the {split} split is not built yet; call setup() first")
        return dataset


def automatic_workers() -> int:
    """Return one loader process per CPU this process may use, up to 8, and 0 on a single CPU."""
    usable = getattr(os, "sched_getaffinity", None)
    cpus = len(usable(0)) if usable is not None else (os.cpu_count() or 1)
    return 0 if cpus == 1 else min(cpus, _MAX_WORKERS)


def _sized(dataset: Any) -> Sized:
    """Return the data set as what it must be: PyTorch's own type does not promise a length."""
    sized: Sized = dataset
    return sized
