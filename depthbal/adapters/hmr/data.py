"""SPIN's data sets as a data module: which rows, how they are mixed, features or pictures."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from depthbal.adapters.hmr.body import GroundTruth, Meshes, body_file, rotmats_of
from depthbal.adapters.hmr.crops import SIZE, Change, change_pose, crop_image, draw_change
from depthbal.adapters.hmr.files import (
    SOURCES,
    STEMS,
    TEST,
    FitsKind,
    People,
    read_arrays,
    read_people,
    rows_file,
)
from depthbal.data.dataset import SeededDataset
from depthbal.data.files import files_digest, missing_files
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD, read_image
from depthbal.data.label_data import LabelData, Split, announce
from depthbal.data.sampler import PADDING, EpochSampler
from depthbal.data.splits import hold_out
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Label, LabelBins
from depthbal.priors import Histogram

Recipe = Literal["spin", "published"]
PUBLISHED = {"h36m": 0.35, "mpi_inf_3dhp": 0.15, "lsp": 0.1, "lspet": 0.1, "mpii": 0.1, "coco": 0.2}
"""MMHuman3D, configs/balanced_mse/resnet50_spin_ihmr_ft_bmc.py."""
SPIN = {"h36m": 0.3, "mpi_inf_3dhp": 0.1}
"""SPIN, datasets/mixed_dataset.py: the others share .6 in proportion to their sizes."""
MANY_SHARE, FEW_SHARE = 0.0074, 0.00285
"""A region with more, or fewer, of the training bodies is many-shot, or few-shot, as for depth."""


class PeopleDataset(SeededDataset[dict[str, Any]]):
    """Samples of people, changed at random or not: an "image" or its "features", and the body."""

    def __init__(
        self, people: People, seed: int = 0, augment: bool = False, features: Any = None
    ) -> None:
        super().__init__(seed)
        self.people, self.augment, self.features = people, augment, features

    def __len__(self) -> int:
        return len(self.people["file"])

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return a sample; the picture is read only where there are no features."""
        row: dict[str, Any] = {key: column[index] for key, column in self.people.items()}
        file = str(row.pop("file"))
        if self.features is not None:
            row["features"] = np.array(self.features[index], np.float32)
        else:
            change = draw_change(np.random.default_rng(seed)) if self.augment else Change()
            row["image"] = crop_image(read_image(file), row["center"], row["scale"], change)
            row["pose"] = change_pose(row["pose"], change)
        # the folder is that of the video that a picture is a frame of
        return {**row, "index": index, "name": file, "group": Path(file).parent.name}

    def padding(self) -> dict[str, Any]:
        """Return a sample that counts nowhere."""
        return {**self.sample(0, 0), "valid": np.False_, "index": PADDING}

    def plain(self) -> "PeopleDataset":
        """Return the same people in pictures as they are."""
        return PeopleDataset(self.people)

    def fingerprint(self) -> str:
        """Return a digest of all that the plain images depend on."""
        return files_digest(Path(), self.people["file"].tolist(), _digest(self.people))


class MixedSampler(EpochSampler):
    """Draw rows with replacement in proportion to their weights, by (seed, epoch) alone.

    The first number of an address is that of the draw and not of the epoch, so that a row drawn
    twice is changed differently.
    """

    def __init__(self, weights: Tensor, samples: int, seed: int = 0) -> None:
        super().__init__(range(samples), seed=seed)
        self.weights = weights

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this rank's (draw, row)."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        drawn = torch.multinomial(self.weights, self.total_size, True, generator=generator)
        numbered = enumerate(drawn.tolist(), start=self.epoch * self.total_size)
        return iter(list(numbered)[self.rank :: self.num_replicas])


def mixing_ratios(sizes: Mapping[str, int], recipe: Recipe = "spin") -> dict[str, float]:
    """Return the share of every data set in the training samples, the recipe's over their sum."""
    wild = sum(size for name, size in sizes.items() if name not in SPIN)
    spin = {name: SPIN.get(name) or 0.6 * size / wild for name, size in sizes.items()}
    shares = {name: (PUBLISHED if recipe == "published" else spin)[name] for name in sizes}
    return {name: share / sum(shares.values()) for name, share in shares.items()}


class HmrDataModule(LabelData):
    """Feed people of SPIN's data sets to training, validation and test.

    Training rows are drawn with replacement in the mixture's shares, as many per epoch as the
    largest data set has. Only rows with a body (known, or a fit that counts) are learned from.

    Args:
        root: SPIN's ``data`` folder; where files are missing, the error says where they come from.
        datasets: Training data sets; null takes all that are there and have a body.
        fits: "static" or "final" fits for pictures without a known body.
        mixing: "spin" (.3 Human3.6M, .1 MPI-INF-3DHP, .6 for the others by their sizes) or the
            "published" shares (.35, .15, LSP, LSPET and MPII .1 each, COCO .2).
        augment: Change crops and poses at random as published, and run the backbone in every step;
            otherwise features are computed once, or read where ``features`` has those of all sets.
        ground_truth: Test bodies of the person's gender, as published for 3DPW, or "neutral".
        batch_size: Samples per batch and process.
        num_workers: Loader processes; -1 chooses one per CPU up to 8.
        seed: Of draws, changes and the validation split.
        val_fraction: Share of every data set held out for validation; 0 for none.

    Raises:
        ConfigError: An unknown data set.
        DataError: In `setup`, when files are missing or wrong.
    """

    label = Label("distance to the mean pose", "mm")

    def __init__(
        self,
        root: str,
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
        if datasets is not None and not set() < set(datasets) <= set(PUBLISHED):
            raise ConfigError(f"expected data sets among {', '.join(PUBLISHED)}, got {datasets}")
        self.root, self.datasets, self.fits, self.mixing = Path(root), datasets, fits, mixing
        self.augment, self.ground_truth, self.val_fraction = augment, ground_truth, val_fraction

    @cached_property
    def meshes(self) -> Meshes:
        """What predictions for the test set are scored with."""
        return Meshes(self.root, self.ground_truth)

    def dataset(self, split: Split) -> PeopleDataset | None:
        """Return the people of a split."""
        if split == "test":
            people = read_people(self.root, TEST)
            if not people["valid"].all():
                raise DataError(
                    f"{rows_file(self.root, TEST)} must hold pose and shape of all rows"
                )
            return PeopleDataset(people, features=self._features({TEST: len(people["file"])}))
        if split == "val" and not self.val_fraction:
            return None
        return self.training[split == "val"]

    @cached_property
    def training(self) -> list[PeopleDataset]:
        """The people to train on and those held out, with their data sets end to end."""
        there = [name for name in PUBLISHED if rows_file(self.root, name).is_file()]
        sets = {name: read_people(self.root, name, self.fits) for name in self.datasets or there}
        sets = {name: people for name, people in sets.items() if people["valid"].any()}
        if not sets or set(self.datasets or ()) - set(sets):
            raise DataError(
                f"{self.root} has no body for any picture of {' or '.join(self.datasets or there)}: "
                f"no pose in its rows and no {self.fits} fits. What is needed:{SOURCES}"
            )
        sizes = {name: len(people["file"]) for name, people in sets.items()}
        self.ratios = mixing_ratios(sizes, self.mixing)
        announce(f"Training data: {', '.join(f'{k} {v:.2f}' for k, v in self.ratios.items())}")
        splits = [hold_out([name] * n, self.val_fraction, self.seed) for name, n in sizes.items()]
        self.kept = {name: len(split.kept) for name, split in zip(sizes, splits, strict=True)}
        keys = next(iter(sets.values()))
        people = {key: np.concatenate([one[key] for one in sets.values()]) for key in keys}
        features = None if self.augment else self._features(sizes)
        starts, found = np.cumsum([0, *sizes.values()]), []
        for held_out in (0, 1):
            parts = zip(starts, [split[held_out] for split in splits], strict=False)
            rows = np.concatenate([start + np.array(part, np.int64) for start, part in parts])
            chosen = {key: column[rows] for key, column in people.items()}
            own = None if features is None else features[rows]
            found.append(PeopleDataset(chosen, self.seed, self.augment and not held_out, own))
        return found

    def _features(self, sizes: Mapping[str, int]) -> NDArray[Any] | None:
        """Return the features of data sets end to end where all of them have a file."""
        paths = [self.root / "features" / f"{STEMS[name]}.npy" for name in sizes]
        if not all(path.is_file() for path in paths):
            return None
        pairs = zip(paths, sizes.values(), strict=True)
        return np.concatenate(
            [read_arrays(path, {"features": (n, "F")})["features"] for path, n in pairs]
        )

    def check_inputs(self, width: int, pictures: bool) -> None:
        """Check that there are features of a width, or all pictures for a network that takes them.

        Raises:
            ConfigError: Features of another width.
            DataError: Neither features nor all pictures.
        """
        for images in filter(None, (self.train_set, self.val_set, self.test_set)):
            if images.features is not None:
                if (found := images.features.shape[1]) != width:
                    raise ConfigError(
                        f"{self.root}/features has {found} numbers per picture, the network takes "
                        f"{width}; set --model.model.features {found}"
                    )
                continue
            files = images.people["file"].tolist()
            missing = [path for _, path in missing_files(Path(), files)] if pictures else files
            if missing:
                what = ", ".join(missing[:5]) if pictures else f"{self.root}/features/STEM.npy"
                raise DataError(
                    f"{len(missing)} of {len(files)} inputs are missing: {what}, ... What is "
                    f"needed, and from where:{SOURCES}"
                )

    # ---- loaders and labels ----

    def train_weights(self) -> Tensor:
        """Return the probability of every training row, (rows,) float64."""
        shares = [np.full(size, self.ratios[name] / size) for name, size in self.kept.items()]
        return torch.from_numpy(np.concatenate(shares))

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the loader of the mixture."""
        sampler = MixedSampler(self.train_weights(), max(self.kept.values()), self.seed)
        return self._loader(self.train_set, sampler)

    @torch.inference_mode()
    def labels(self, split: Split) -> list[Tensor]:
        """Return the distances of the neutral bodies that count to the mean body, mm."""
        people, meshes = getattr(self, f"{split}_set").people, self.meshes
        columns = [torch.from_numpy(people[key][people["valid"]]) for key in ("pose", "betas")]
        chunks = zip(*(torch.split(column, 256) for column in columns), strict=True)
        return [
            meshes.distance(meshes.bodies[0](rotmats_of(pose), betas)) for pose, betas in chunks
        ]

    def train_histogram(self) -> Histogram:
        """Count the training bodies in 100 regions, the same ones whichever bodies are held out."""
        if self.histogram is None:
            train = torch.cat(self.labels("train"))
            every = [train, *(self.labels("val") if self.val_set is not None else [])]
            edges = np.linspace(0.0, max(1e-6, *(float(far.max()) for far in every)), 101)
            self.histogram = Histogram(edges).update(train)
        return self.histogram

    def bins(self) -> LabelBins:
        """Return the regions with their shots."""
        histogram = self.train_histogram()
        shares = histogram.counts / histogram.total
        rule = f"many above {MANY_SHARE:.3%} of all training bodies, few below {FEW_SHARE:.3%}"
        edges = histogram.edges
        return LabelBins.from_counts(edges, shares, MANY_SHARE, FEW_SHARE, shot_rule=rule)

    # ---- what the data are ----

    def input_spec(self) -> dict[str, Any]:
        """Return how a person's crop must be prepared."""
        return {"short_side": None, "size": SIZE, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}

    def fingerprint(self) -> str:
        """Return a digest of all that the training labels depend on."""
        known = [*(_digest(data.people) for data in self.training), str(self.ratios)]
        for path in (body_file(self.root, "NEUTRAL"), self.root / "smpl_mean_params.npz"):
            known.append(hashlib.sha256(path.read_bytes()).hexdigest())
        return hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are; of the test alone nothing about training."""
        own: dict[str, Any] = {"source": str(self.root), "ground_truth": self.ground_truth}
        if self.train_set is not None:
            own |= {"mixing": self.ratios, "fits": self.fits, "augment": self.augment}
        return {**super().describe(), **own}

    def describe_test(self) -> dict[str, Any]:
        """Return what the test data are."""
        found = super().describe_test()
        return {key: found[key] for key in found if key not in ("mixing", "fits", "augment")}


def _digest(people: People) -> str:
    names = "\n".join(Path(file).name for file in people["file"].tolist())
    columns = [np.ascontiguousarray(people[key]).tobytes() for key in people if key != "file"]
    return hashlib.sha256(b"".join([names.encode(), *columns])).hexdigest()
