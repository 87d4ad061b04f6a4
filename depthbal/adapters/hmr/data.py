"""SPIN's data sets as a data module: rows, their mixture, features or crops changed at random."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from depthbal.adapters.hmr import files
from depthbal.adapters.hmr.body import GroundTruth, Meshes, rotmats_of
from depthbal.adapters.hmr.files import SOURCES, STEMS, TEST, FitsKind, People
from depthbal.data.arrays import Array
from depthbal.data.dataset import SeededDataset
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD, read_image
from depthbal.data.label_data import LabelData, Split, announce
from depthbal.data.loader import PADDING, WeightedSampler
from depthbal.data.pairs import files_digest
from depthbal.data.splits import hold_out
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Label, LabelBins
from depthbal.priors import Histogram

SIZE = 224
FLIPPED_JOINTS = [
    *(0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10),
    *(12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22),
]
"""The joint of the mirrored body that each SMPL joint becomes."""
SPIN = {"h36m": 0.3, "mpi_inf_3dhp": 0.1}
"""SPIN, datasets/mixed_dataset.py: the others share the rest in proportion to their sizes."""
MANY, FEW = 0.0074, 0.00285
"""Shares of the training bodies above which a region is many-shot, below which few-shot."""


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


def mixing_ratios(sizes: Mapping[str, int], mixing: Mapping[str, float] = SPIN) -> dict[str, float]:
    """Return the share of every data set in the training samples; those without share the rest."""
    rest, wild = 1 - sum(mixing.values()), sum(sizes[name] for name in sizes if name not in mixing)
    shares = {name: mixing.get(name) or rest * size / wild for name, size in sizes.items()}
    return {name: share / sum(shares.values()) for name, share in shares.items()}


class HmrDataModule(LabelData):
    """Feed people of SPIN's data sets to training, validation and test.

    Training rows are drawn with replacement in the mixture's shares, as many per epoch as the
    largest data set has. Only rows with a body (known, or a fit that counts) are learned from.

    Args:
        root: SPIN's ``data`` folder; where files are missing, the error says where they come from.
        datasets: Training data sets, also of one's own, whose files are named as SPIN's are: NAME
            for STEM and for NAME. Null takes all of SPIN's that are there and have a body.
        fits: "static" or "final" fits for pictures without a known body.
        mixing: Shares of data sets, over the sum of those that are there; others share the rest by
            their sizes. Null: SPIN's .3 h36m, .1 mpi_inf_3dhp.
        augment: Change crops and poses at random as published, and run the backbone in every step;
            otherwise features are computed once, or read where ``features`` has those of all sets.
        ground_truth: Test bodies of the person's gender, as published for 3DPW, or "neutral".
        batch_size: As num_workers and seed (of draws, changes and the split), of `LabelData`.
        val_fraction: Share of every data set held out for validation; 0 for none.

    Raises:
        DataError: In `setup`, when files are missing or wrong.
    """

    label = Label("distance to the mean pose", "mm")

    def __init__(
        self,
        root: str,
        datasets: list[str] | None = None,
        fits: FitsKind = "static",
        mixing: dict[str, float] | None = None,
        augment: bool = False,
        ground_truth: GroundTruth = "gendered",
        batch_size: int = 128,
        num_workers: int = -1,
        seed: int = 0,
        val_fraction: float = 0.05,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        own, shares = {*(datasets or ())}, {*(mixing or ())}
        if datasets == [] or TEST in own | shares or shares - {*STEMS} - own:
            raise ConfigError(f"expected training data sets and shares, got {datasets}, {mixing}")
        self.root, self.datasets, self.fits = Path(root), datasets, fits
        self.mixing, self.samples = SPIN if mixing is None else mixing, 0
        self.augment, self.ground_truth, self.val_fraction = augment, ground_truth, val_fraction

    @cached_property
    def meshes(self) -> Meshes:
        """What predictions are scored with."""
        return Meshes(self.root, self.ground_truth)

    def dataset(self, split: Split) -> PeopleDataset | None:
        """Return the people of a split."""
        if split == "test":
            people = files.read_people(self.root, TEST)
            if not people["valid"].all():
                raise DataError(f"{self.root}: 3dpw_test.npz needs pose and shape of every row")
            return PeopleDataset(people, features=self._features({TEST: len(people["file"])}))
        return None if split == "val" and not self.val_fraction else self.training[split == "val"]

    @cached_property
    def training(self) -> list[PeopleDataset]:
        """The people to train on and those held out, with their data sets end to end."""
        there = [name for name in STEMS if files.rows_file(self.root, name).is_file()]
        wanted = self.datasets or [name for name in there if name != TEST]
        sets = {name: files.read_people(self.root, name, self.fits) for name in wanted}
        sets = {name: people for name, people in sets.items() if people["valid"].any()}
        if not sets or set(self.datasets or ()) - set(sets):
            raise DataError(
                f"{self.root} has no body for any picture of {' or '.join(wanted)}: no pose in its "
                f"rows, no {self.fits} fits{SOURCES}"
            )
        sizes = {name: len(people["file"]) for name, people in sets.items()}
        self.ratios = mixing_ratios(sizes, self.mixing)
        announce(f"Training data: {', '.join(f'{k} {v:.2f}' for k, v in self.ratios.items())}")
        for name, people in sets.items():
            split = hold_out([name] * sizes[name], self.val_fraction, self.seed)
            people["held_out"] = np.isin(np.arange(sizes[name]), split.held_out)
            people["weight"] = np.full(sizes[name], self.ratios[name] / len(split.kept))
            self.samples = max(self.samples, len(split.kept))
        joined = {key: np.concatenate([one[key] for one in sets.values()]) for key in people}
        features, found = None if self.augment else self._features(sizes), []
        for held_out in (False, True):
            chosen = joined["held_out"] == held_out
            part = {key: column[chosen] for key, column in joined.items()}
            own = None if features is None else features[chosen]
            found.append(PeopleDataset(part, self.seed, self.augment and not held_out, own))
        return found

    def _features(self, sizes: Mapping[str, int]) -> Array | None:
        """Return the features of data sets end to end where all of them have a file."""
        folder = self.root / "features"
        stems = {name: files.rows_file(self.root, name).stem for name in sizes}
        paths = {folder / f"{stems[name]}.npy": count for name, count in sizes.items()}
        if not all(path.is_file() for path in paths):
            return None
        found = [files.read(path, {"features": (n, "F")}) for path, n in paths.items()]
        return np.concatenate([arrays["features"] for arrays in found])

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the loader of the mixture."""
        weights = torch.from_numpy(self.train_set.people["weight"])
        return self.loader(self.train_set, WeightedSampler(weights, self.samples, self.seed))

    @torch.inference_mode()
    def labels(self, split: Split) -> list[Tensor]:
        """Return the distances of the neutral bodies that count to the mean body, mm."""
        people, meshes = getattr(self, f"{split}_set").people, self.meshes
        columns = [torch.from_numpy(people[key][people["valid"]]) for key in ("pose", "betas")]
        chunks = zip(*(torch.split(column, 256) for column in columns), strict=True)
        return [meshes.distance(meshes.neutral(rotmats_of(pose), betas)) for pose, betas in chunks]

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
        rule = f"many above {MANY:.3%} of all training bodies, few below {FEW:.3%}"
        return LabelBins.from_counts(histogram.edges, shares, MANY, FEW, shot_rule=rule)

    def input_spec(self) -> dict[str, Any]:
        """Return how a person's crop must be prepared."""
        return {"short_side": None, "size": SIZE, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}

    def fingerprint(self) -> str:
        """Return a digest of the bodies that are trained on and of their mixture."""
        return _digest(self.training[0].people)


# ---- crops ----


class Change(NamedTuple):
    """A change of a training sample: mirrored, factors of the channels, turn in degrees, zoom."""

    flip: bool = False
    channels: tuple[float, ...] = (1.0, 1.0, 1.0)
    rotation: float = 0.0
    scale: float = 1.0


def draw_change(generator: np.random.Generator) -> Change:
    """Draw a change as published (SPIN, datasets/base_dataset.py)."""
    channels = tuple(generator.uniform(0.6, 1.4, 3).tolist())
    rotation = float(np.clip(generator.normal(0.0, 30.0), -60.0, 60.0))
    flip = bool(generator.uniform() <= 0.5)
    rotation = 0.0 if generator.uniform() <= 0.6 else rotation
    return Change(flip, channels, rotation, float(np.clip(generator.normal(1, 0.25), 0.75, 1.25)))


def crop_corners(center: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    """Return the corners ((x, y), (x, y)) of a box of 200 scale pixels, cut to whole ones."""
    side = 200.0 * scale
    to_crop = np.eye(3)
    to_crop[0, 0] = to_crop[1, 1] = SIZE / side
    to_crop[:2, 2] = SIZE * (0.5 - np.asarray(center, dtype=np.float64) / side)
    # through the matrix as published: rounding decides where a corner is a whole number
    corners = np.linalg.inv(to_crop) @ np.array([[0, SIZE], [0, SIZE], [1, 1]], dtype=np.float64)
    return corners[:2].T.astype(np.int64)


def crop_image(
    image: NDArray[np.uint8],
    center: NDArray[np.float64],
    scale: float,
    change: Change = Change(),  # noqa: B008 - a tuple, which nobody can change
) -> Tensor:
    """Return the normalised crop (3, 224, 224) of a person in an RGB image (H, W, 3)."""
    # contrast stays that of the picture, where SPIN's scipy.misc stretched every crop to 0 and 255
    upper, lower = crop_corners(center, scale * change.scale)
    width, height = np.maximum(lower - upper, 1).tolist()
    middle = upper + np.array([(width - 1) / 2, (height - 1) / 2])
    turn = cv2.getRotationMatrix2D(middle.tolist(), change.rotation, 1.0)
    turn[:, 2] -= upper
    window = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)
    if change.flip:
        window = window[:, ::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1)))[None].float()
    pixels = functional.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    channels, mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (change.channels, IMAGENET_MEAN, IMAGENET_STD)
    )
    return ((pixels.round() * channels).clamp(0, 255) / 255 - mean) / std


def change_pose(pose: NDArray[np.float32], change: Change) -> NDArray[np.float32]:
    """Return the pose (72,) of the body in the changed picture: turned at the root, mirrored."""
    joints = pose.reshape(24, 3).astype(np.float64)
    if change.rotation:
        turn = cv2.Rodrigues(np.array([0.0, 0.0, np.deg2rad(-change.rotation)]))[0]
        joints[0] = cv2.Rodrigues(turn @ cv2.Rodrigues(joints[0])[0])[0][:, 0]
    if change.flip:
        joints = joints[FLIPPED_JOINTS] * [1.0, -1.0, -1.0]
    return joints.reshape(72).astype(np.float32)


def _digest(people: People) -> str:
    """Return a digest of all columns but the place of the pictures."""
    columns = [column.tobytes() for key, column in people.items() if key != "file"]
    return hashlib.sha256(b"".join(columns)).hexdigest()[:32]
