"""SPIN's data sets as a data module: which rows, how they are mixed, features or pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from depthbal.adapters.hmr.features import load_features, require_features, require_pictures
from depthbal.adapters.hmr.fits import read_people, read_test
from depthbal.adapters.hmr.head import MeanParams, load_mean_params
from depthbal.adapters.hmr.layout import (
    DATA_SETS,
    MEAN_PARAMS,
    TEST,
    TRAINING,
    FitsKind,
    body_file,
)
from depthbal.adapters.hmr.meshes import Errors, GroundTruth, people_distances
from depthbal.adapters.hmr.mixing import MixedSampler, Recipe, mixing_ratios, row_weights
from depthbal.adapters.hmr.people import People, PeopleDataset
from depthbal.data.histogram import cached_histogram, store_histogram
from depthbal.data.split_module import SplitDataModule, announce
from depthbal.data.splits import hold_out
from depthbal.errors import ConfigError, DataError
from depthbal.priors import Histogram

REGIONS = 100
"""Of the distance to the mean pose, as in the paper's figure 3 (supplement)."""


class HmrDataModule(SplitDataModule[PeopleDataset]):
    """Feed people of SPIN's data sets to training, validation and test.

    Batches are those of `PeopleDataset`. Training rows are drawn with replacement in the mixture's
    shares, as many per epoch as the largest data set has. Only rows with a body (known, or a fit
    that counts) are learned from.

    Args:
        root: SPIN's ``data`` folder; ``tools/train_hmr.py --check ROOT`` says what it must hold.
        datasets: Training data sets; null takes all that are there.
        fits: "static" or "final" fits for pictures without a known body.
        mixing: "spin" or "published" shares, see `mixing_ratios`.
        augment: Change crops and poses at random as published, and run the backbone in every step;
            otherwise features are computed once.
        ground_truth: Test bodies of the person's gender, as published for 3DPW, or "neutral".
        batch_size: Samples per batch and process.
        num_workers: Loader processes; -1 chooses one per CPU up to 8.
        seed: Of draws, augmentation and the validation split.
        val_fraction: Share of every data set held out for validation; 0 for none.

    Raises:
        ConfigError: Values outside their range, or an unknown data set.
        DataError: In `setup`, when files are missing or wrong.
    """

    def __init__(
        self,
        root: str,
        *,
        datasets: list[str] | None = None,
        fits: FitsKind = "static",
        mixing: Recipe = "spin",
        augment: bool = False,
        ground_truth: GroundTruth = "gendered",
        batch_size: int = 128,
        num_workers: int = -1,
        seed: int = 0,
        val_fraction: float = 0.05,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        unknown = set(datasets or ()) - set(TRAINING)
        if unknown or datasets == []:
            raise ConfigError(f"expected data sets among {', '.join(TRAINING)}, got {datasets}")
        self.root = Path(root)
        self.datasets, self.fits, self.mixing = datasets, fits, mixing
        self.augment, self.ground_truth = augment, ground_truth
        self.val_fraction = val_fraction
        self.ratios: dict[str, float] = {}
        self._measure: Errors | None = None
        self._whole: dict[str, People] = {}
        self._places: dict[str, tuple[list[int], list[int]]] = {}

    # ---- splits ----

    def setup(self, stage: str | None = None) -> None:
        """Read the rows; only the test set's for stage "test".

        Raises:
            DataError: A file is missing, damaged or does not fit.
        """
        if self.test_set is None:
            self._whole[TEST.name] = read_test(self.root)
            self.test_set = PeopleDataset(self._whole[TEST.name])
        if stage != "test" and self.train_set is None:
            self._setup_training()

    def _setup_training(self) -> None:
        for name in self.datasets or TRAINING:
            path = self.root / TRAINING[name].rows
            if self.datasets is None and not path.is_file():
                continue
            people = read_people(self.root, TRAINING[name], self.fits)
            if people.valid.any():
                split = hold_out([name] * len(people), self.val_fraction, self.seed)
                self._whole[name] = people
                self._places[name] = (split.kept, split.held_out)
            elif self.datasets is not None:
                raise DataError(
                    f"no picture of {name} has a body: {path} has no pose and there are no "
                    f"{self.fits} fits for it; give them, or leave it out with --data.datasets"
                )
        if not self._places:
            raise DataError(
                f"no training data in {self.root}: expected files such as "
                f"{TRAINING['coco'].rows} and {TRAINING['coco'].static}; "
                f"tools/train_hmr.py --check {self.root} lists all of them"
            )
        self.ratios = mixing_ratios({n: len(self._whole[n]) for n in self._places}, self.mixing)
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.ratios.items())
        announce(f"Training data: {shares}")
        self._build()

    def _build(self, features: dict[str, Any] | None = None) -> None:
        """Lay the data sets end to end, with features where they are known."""

        def dataset(part: int) -> PeopleDataset:
            rows = {name: places[part] for name, places in self._places.items()}
            people = People.join([self._whole[name].rows(at) for name, at in rows.items()])
            known = None
            if features is not None:
                known = np.concatenate([features[name][at] for name, at in rows.items()])
            return PeopleDataset(people, self.seed, self.augment and part == 0, known)

        self.train_set = dataset(0)
        self.val_set = dataset(1) if self.val_fraction else None

    # ---- features ----

    def check_inputs(self, backbone: nn.Module | None, width: int) -> None:
        """Check, before anything is computed, that there are features or pictures for the network.

        Args:
            backbone: The network's, or None where it takes features.
            width: Numbers per picture that its regressor takes.

        Raises:
            ConfigError: Features of another width, or changed pictures without a backbone.
            DataError: Neither features nor all pictures.
        """
        if self.augment and backbone is None:
            raise ConfigError(
                "--data.augment true needs the backbone: give --model.model.init_args.weights, "
                "SPIN's model_checkpoint.pt"
            )
        for name, people in self._whole.items():
            if self.augment and name != TEST.name:
                require_pictures(people)
            else:
                require_features(DATA_SETS[name].features(self.root), people, backbone, width)

    def use_backbone(self, backbone: nn.Module | None, device: torch.device | str = "cpu") -> None:
        """Take features in place of pictures, computing those that are not in files yet.

        With ``augment`` training and validation keep their pictures.

        Args:
            backbone: Frozen, or None where the features' files must be there.
            device: Where to compute.

        Raises:
            DataError: As `load_features`.
        """
        assert self.test_set is not None
        features = {
            name: load_features(
                DATA_SETS[name].features(self.root), people, backbone, device, self.num_workers
            )
            for name, people in self._whole.items()
            if name == TEST.name or not self.augment
        }
        self.test_set.features = features[TEST.name]
        if self._places and not self.augment:
            self._build(features)

    # ---- loaders, labels and scores ----

    def measure(self) -> Errors:
        """Return what scores predictions for the test set; its files are read once.

        Raises:
            DataError: A body model, the mean parameters or the joint regressor is missing or wrong.
        """
        if self._measure is None:
            self._measure = Errors(self.root, self.ground_truth)
        return self._measure

    def mean_params(self) -> MeanParams:
        """Return the mean pose and shape of the folder.

        Raises:
            DataError: The file is missing or damaged.
        """
        return load_mean_params(self.root / MEAN_PARAMS)

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the loader of the mixture."""
        train = self._require(self.train_set, "training")
        samples = max(len(kept) for kept, _ in self._places.values())
        return self._loader(train, MixedSampler(self.train_weights(), samples, self.seed))

    def train_weights(self) -> Tensor:
        """Return the probability of every training row, (rows,) float64."""
        sizes = {name: len(kept) for name, (kept, _) in self._places.items()}
        return row_weights(sizes, self.ratios)

    def train_histogram(self) -> Histogram:
        """Count the training bodies in 100 regions of the distance to the mean pose, in mm.

        The regions reach to the farthest body of training and validation together, so that they are
        the same whichever seed has held bodies out.

        Raises:
            DataError: A body model is missing.
        """
        digest = self.fingerprint()
        histogram = cached_histogram(digest)
        if histogram is None:
            splits = self._training_people()
            people = People.join(splits)
            far = people_distances(self.root, people.rows(people.valid)).numpy()
            edges = np.linspace(0.0, max(far.max(), 1e-6), REGIONS + 1)
            histogram = Histogram(edges).update(far[: splits[0].valid.sum()])
            store_histogram(digest, histogram)
        return histogram

    def fingerprint(self) -> str:
        """Return a hex digest of all that the training labels depend on."""
        people = [split.fingerprint() for split in self._training_people()]
        files = [body_file(self.root, "NEUTRAL"), self.root / MEAN_PARAMS]
        models = [_digest(path) for path in files if path is not None and path.is_file()]
        settings = ["hmr", 2, people, self.ratios, models]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]

    def _training_people(self) -> list[People]:
        """Return the people to train on, and those held out if there are any."""
        train = self._require(self.train_set, "training")
        return [train.people] + ([] if self.val_set is None else [self.val_set.people])

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are."""
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        train = self.train_set
        return {
            "class": type(self).__name__,
            "source": str(self.root),
            "benchmark": None,
            "images": {split: None if data is None else len(data) for split, data in sets.items()},
            "mixing": self.ratios,
            "valid": None if train is None else int(train.people.valid.sum()),
            "fits": self.fits,
            "augment": self.augment,
            "ground_truth": self.ground_truth,
            "seed": self.seed,
            "fingerprint": None if train is None else self.fingerprint(),
        }

    def describe_test(self) -> dict[str, Any]:
        """Return what the test data are, whether or not the training data are there."""
        of_training = ("mixing", "valid", "fits", "augment")
        return {k: v for k, v in super().describe_test().items() if k not in of_training}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
