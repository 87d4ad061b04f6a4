"""SPIN's data sets as a data module: which rows, how they are mixed, features or pictures."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from depthbal.adapters.hmr.crops import SIZE, Change, change_pose, crop_image, draw_change
from depthbal.adapters.hmr.errors import GroundTruth, Meshes, body_file
from depthbal.adapters.hmr.files import (
    STEMS,
    TEST,
    Array,
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

SOURCES = """
smpl/SMPL_NEUTRAL.pkl (or .npz): smplify.is.tue.mpg.de, after registration
smpl/SMPL_MALE.pkl, SMPL_FEMALE.pkl: smpl.is.tue.mpg.de; not with --data.ground_truth neutral
smpl_mean_params.npz, J_regressor_h36m.npy: SPIN's data.tar.gz, or the links in MMHuman3D's README
dataset_extras/3dpw_test.npz and any of h36m_train, mpi_inf_3dhp_train, lsp_dataset_original_train,
  hr-lspet_train, mpii_train, coco_2014_train: SPIN's dataset_extras.tar.gz, or its preprocessing
static_fits/NAME_fits.npy or spin_fits/NAME.npz: SPIN's static_fits.tar.gz, spin_fits.tar.gz
images/NAME/: each data set's site; with --model.model.weights, SPIN's model_checkpoint.pt or
  MMHuman3D's spin_official_nofc.pth; or in their place features/STEM.npy, float32 (rows, F)
(SPIN's host, visiondata.cis.upenn.edu/spin, is reported unreachable since 2025.)"""
"""What SPIN's data folder holds, and where it comes from."""
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
        row = {key: column[index] for key, column in self.people.items()}
        file, pose, pixels = str(row["file"]), row["pose"].copy(), {}
        if self.features is not None:
            pixels["features"] = torch.from_numpy(np.array(self.features[index], np.float32))
        else:
            change = draw_change(np.random.default_rng(seed)) if self.augment else Change()
            box = row["center"], float(row["scale"])
            pixels["image"] = crop_image(read_image(file), *box, change)
            pose = change_pose(pose, change)
        return {
            **pixels,
            "pose": torch.from_numpy(pose),
            "betas": torch.from_numpy(row["betas"]),
            "valid": bool(row["valid"]),
            "gender": int(row["gender"]),
            "index": index,
            "name": file,
            "group": Path(file).parent.name,  # the video that it is a frame of
        }

    def padding(self) -> dict[str, Any]:
        """Return a sample that counts nowhere."""
        return {**self.sample(0, 0), "valid": False, "index": PADDING}

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
    shares = dict.fromkeys(sizes, 0.0)
    for name, size in sizes.items():
        of_spin = SPIN[name] if name in SPIN else 0.6 * size / wild
        shares[name] = PUBLISHED[name] if recipe == "published" else of_spin
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


class HmrDataModule(LabelData):
    """Feed people of SPIN's data sets to training, validation and test.

    Training rows are drawn with replacement in the mixture's shares, as many per epoch as the
    largest data set has. Only rows with a body (known, or a fit that counts) are learned from.

    Args:
        root: SPIN's ``data`` folder; where files are missing, the error says where they come from.
        datasets: Training data sets; null takes all that are there.
        fits: "static" or "final" fits for pictures without a known body.
        mixing: "spin" (.3 Human3.6M, .1 MPI-INF-3DHP, .6 for the others by their sizes) or the
            "published" shares (.35, .15, LSP, LSPET and MPII .1 each, COCO .2).
        augment: Change crops and poses at random as published, and run the backbone in every step;
            otherwise features are computed once.
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

    def check_root(self) -> None:
        """Check that there is what every training needs."""
        bodies = ("NEUTRAL", "MALE", "FEMALE")[: 3 if self.ground_truth == "gendered" else 1]
        needed = [body_file(self.root, name) for name in bodies]
        needed += [self.root / name for name in ("smpl_mean_params.npz", "J_regressor_h36m.npy")]
        needed += [rows_file(self.root, name) for name in (TEST, *(self.datasets or ()))]
        missing = [str(path.relative_to(self.root)) for path in needed if not path.is_file()]
        if not any(rows_file(self.root, name).is_file() for name in PUBLISHED):
            missing.append("training set in dataset_extras")
        if missing:
            lacking = ", no ".join(missing)
            raise DataError(f"{self.root} has no {lacking}. What is needed, and from where:{SOURCES}")

    @cached_property
    def meshes(self) -> Meshes:
        """What predictions for the test set are scored with."""
        return Meshes(self.root, self.ground_truth)

    @cached_property
    def parts(self) -> dict[str, tuple[People, Array, Array]]:
        """The training sets with a body: people, the rows to train on and those held out."""
        found = {}
        for name in self.datasets or PUBLISHED:
            if self.datasets is None and not rows_file(self.root, name).is_file():
                continue
            people = read_people(self.root, name, self.fits)
            if people["valid"].any():
                split = hold_out([name] * len(people["file"]), self.val_fraction, self.seed)
                found[name] = people, np.array(split.kept), np.array(split.held_out, np.int64)
            elif self.datasets is not None:
                raise DataError(
                    f"no picture of {name} has a body: {rows_file(self.root, name)} has no pose "
                    f"and there are no {self.fits} fits for it; leave it out of --data.datasets"
                )
        if not found:
            raise DataError(f"no picture in {self.root} has a body. What is needed:{SOURCES}")
        self.ratios = mixing_ratios({k: len(v[0]["file"]) for k, v in found.items()}, self.mixing)
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.ratios.items())
        announce(f"Training data: {shares}")
        return found

    def dataset(self, split: Split) -> PeopleDataset | None:
        """Return the people of a split, with features where all of its data sets have a file."""
        if split == "test":
            people = read_people(self.root, TEST)
            if not people["valid"].all():
                raise DataError(f"{rows_file(self.root, TEST)} must hold pose and shape of all rows")
            features = self._features({TEST: len(people["file"])})
            return PeopleDataset(people, features=None if features is None else features[0])
        if split == "val" and not self.val_fraction:
            return None
        rows = [part[1 if split == "train" else 2] for part in self.parts.values()]
        every = [part[0] for part in self.parts.values()]
        people = {
            key: np.concatenate([one[key][at] for one, at in zip(every, rows, strict=True)])
            for key in every[0]
        }
        features = self._features({name: len(part[0]["file"]) for name, part in self.parts.items()})
        joined = None
        if features is not None and not self.augment:
            joined = np.concatenate([one[at] for one, at in zip(features, rows, strict=True)])
        return PeopleDataset(people, self.seed, self.augment and split == "train", joined)

    def _features(self, sizes: Mapping[str, int]) -> list[Array] | None:
        paths = {self.root / "features" / f"{STEMS[name]}.npy": n for name, n in sizes.items()}
        if not all(path.is_file() for path in paths):
            return None
        return [read_arrays(path, {"features": (n, "F")})["features"] for path, n in paths.items()]

    def check_inputs(self, width: int, pictures: bool) -> None:
        """Check that there are features of a width, or all pictures for a network that takes them.

        Raises:
            ConfigError: Features of another width.
            DataError: Neither features nor all pictures.
        """
        for images in (self.train_set, self.val_set, self.test_set):
            found = None if images is None else images.features
            if found is not None and found.shape[1] != width:
                raise ConfigError(
                    f"{self.root}/features has {found.shape[1]} numbers per picture, the network "
                    f"takes {width}; set --model.model.features {found.shape[1]}"
                )
            if images is None or found is not None:
                continue
            files = images.people["file"].tolist()
            missing = [path for _, path in missing_files(Path(), files)]
            if not pictures or missing:
                what = f"{len(missing)} of {len(files)} pictures: {', '.join(missing[:5])}"
                what = what if pictures else "features/STEM.npy of every data set"
                raise DataError(f"{self.root} lacks {what}. What is needed:{SOURCES}")

    # ---- loaders and labels ----

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the loader of the mixture."""
        samples = max(len(kept) for _, kept, _ in self.parts.values())
        return self._loader(self.train_set, MixedSampler(self.train_weights(), samples, self.seed))

    def train_weights(self) -> Tensor:
        """Return the probability of every training row, (rows,) float64."""
        sizes = {name: len(kept) for name, (_, kept, _) in self.parts.items()}
        shares = [np.full(size, self.ratios[name] / size) for name, size in sizes.items()]
        return torch.from_numpy(np.concatenate(shares))

    def labels(self, split: Split) -> Iterator[Tensor]:
        """Yield the distances of the neutral bodies that count to the mean body, mm."""
        people = getattr(self, f"{split}_set").people
        columns = [torch.from_numpy(people[key][people["valid"]]) for key in ("pose", "betas")]
        for pose, betas in zip(*(torch.split(column, 256) for column in columns), strict=True):
            with torch.inference_mode():
                yield self.meshes.neutral_distance(pose, betas)

    def train_histogram(self) -> Histogram:
        """Count the training bodies in 100 regions, the same ones whichever bodies are held out."""
        if self.histogram is None:
            train = torch.cat([*self.labels("train")]).numpy()
            held_out = [] if self.val_set is None else [*self.labels("val")]
            end = max(1e-6, train.max(), *(float(far.max()) for far in held_out))
            self.histogram = Histogram(np.linspace(0.0, end, 101)).update(train)
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
        sets = [data for data in (self.train_set, self.val_set) if data is not None]
        files = [body_file(self.root, "NEUTRAL"), self.root / "smpl_mean_params.npz"]
        known = [*(_digest(data.people) for data in sets), str(self.ratios)]
        known += [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        return hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are."""
        own = {"source": str(self.root), "ground_truth": self.ground_truth}
        if self.train_set is not None:
            valid = int(self.train_set.people["valid"].sum())
            own |= {"mixing": self.ratios, "valid": valid, "fits": self.fits}
        return {**super().describe(), **own}


def _digest(people: People) -> str:
    names = "\n".join(Path(file).name for file in people["file"].tolist())
    columns = [np.ascontiguousarray(people[key]).tobytes() for key in people if key != "file"]
    return hashlib.sha256(b"".join([names.encode(), *columns])).hexdigest()
