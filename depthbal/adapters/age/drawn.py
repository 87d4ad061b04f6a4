"""The embedded data set: drawn faces whose age can only be guessed, with AgeDB's counts."""

import hashlib
import json
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from torch.utils.data import Dataset

from depthbal.adapters.age.agedb import COUNTS
from depthbal.adapters.age.data import SPLITS, LabelDataModule, SplitName
from depthbal.adapters.age.drawn_face import Looks, draw_face
from depthbal.data.pairs import Image
from depthbal.data.picture_cache import drawn_arrays
from depthbal.data.split_module import automatic_workers
from depthbal.errors import ConfigError

DRAWING_VERSION = 1
"""Raised whenever the same seed gives other pictures; part of every fingerprint and cache key."""


@dataclass(frozen=True)
class DrawnFaces(Dataset[tuple[Image]]):
    """The faces of a split, drawn when asked for.

    A person of a certain age looks `apparent` years (one standard deviation) older or younger, and
    every cue scatters by `cues` years more. A face depends on the arguments and its number only.

    Args:
        split: which of the published splits; AgeDB-DIR's number of images for every age.
        size: pixels of either side.
        apparent: standard deviation in years of how old people look.
        cues: standard deviation in years of every single cue.
        seed: of the pictures.
    """

    split: SplitName
    size: int
    apparent: float
    cues: float
    seed: int

    @property
    def labels(self) -> NDArray[np.float64]:
        """Return the ages, float64 (N,)."""
        return drawn_labels(self.split)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image]:
        key = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), index))
        rng = np.random.default_rng(key)
        looks_like = self.labels[index] + self.apparent * rng.standard_normal()
        return (draw_face(Looks.of(looks_like, self.cues, rng), self.size, rng),)

    def key(self) -> str:
        """Return a hex digest of all that the pictures depend on."""
        settings = [DRAWING_VERSION, astuple(self), self.labels.tolist()]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]


class DrawnImages:
    """The drawn faces of a split, held in memory.

    Args:
        images: uint8 (N, S, S, 3) RGB.
        faces: how they were drawn.
    """

    independent = True  # nobody is drawn twice

    def __init__(self, images: Image, faces: DrawnFaces) -> None:
        self.images, self.faces, self.labels = images, faces, faces.labels

    def image(self, index: int) -> Image:
        """Return one face, uint8 (S, S, 3) RGB."""
        face: Image = self.images[index]
        return face

    def name(self, index: int) -> str:
        """Return, for example, `faces/train/00012`."""
        return f"faces/{self.faces.split}/{index:05d}"

    def fingerprint(self) -> str:
        """Return the digest of everything the pictures depend on."""
        return self.faces.key()


@cache
def drawn_labels(split: SplitName) -> NDArray[np.float64]:
    """Return the ages of a split, float64 (N,), in increasing order, as many of each as AgeDB."""
    return np.repeat(np.arange(len(COUNTS[split])), COUNTS[split]).astype(np.float64)


class DrawnAgesDataModule(LabelDataModule):
    """Faces of nobody, drawn on the spot, whose age can only be guessed; no download.

    The labels are as many of each age as in AgeDB-DIR's three published splits (12,208, 2,140 and
    2,140). A picture shows how old somebody looks, which is `apparent` years off by one standard
    deviation, so that the best guess depends on how frequent ages are: what imbalance is about.
    Pictures are drawn once (some seconds) and kept in `depthbal/faces` in the user's cache
    directory, which may be deleted at any time.

    Args:
        size: pixels of either side of the pictures.
        apparent: standard deviation in years between the age and how old somebody looks.
        cues: standard deviation in years of every single cue (hair, shape, eyes, wrinkles, ...).
        picture_seed: of the pictures; runs with another `seed` are repetitions on the same data.
        cache: keep the pictures in the user's cache directory.
        batch_size: samples per batch and process.
        num_workers: loader processes; the pictures are in memory already, so 0 is usually best.
        seed: of shuffling and augmentation.
        padding: width of the black border of training images before a random crop.
        flip: probability of a horizontal flip in training.

    Raises:
        ConfigError: values outside their range.

    Example:
        >>> data = DrawnAgesDataModule()
        >>> data.train_histogram().total, data.label_range()
        (12208.0, (0.5, 101.5))
    """

    def __init__(
        self,
        *,
        size: int = 48,
        apparent: float = 8.0,
        cues: float = 6.0,
        picture_seed: int = 0,
        cache: bool = True,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        padding: int = 2,
        flip: float = 0.5,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            image_size=size,
            padding=padding,
            flip=flip,
        )
        if size < 16 or min(apparent, cues, picture_seed) < 0:
            raise ConfigError(
                "expected --data.size of at least 16, --data.apparent, --data.cues and "
                f"--data.picture_seed of at least 0, got {size}, {apparent:g}, {cues:g} and "
                f"{picture_seed}"
            )
        self.size, self.apparent, self.cues = size, apparent, cues
        self.picture_seed, self.cache = picture_seed, cache

    def prepare_data(self) -> None:
        """Draw what the cache lacks, in one process per machine, before the others ask for it."""
        if self.cache:
            for split in SPLITS:
                self.source(split)

    def labels(self, split: SplitName) -> NDArray[np.float64]:
        """Return the ages of a split."""
        return drawn_labels(split)

    def source(self, split: SplitName) -> DrawnImages:
        """Return the faces of a split, from the cache or freshly drawn."""
        faces = DrawnFaces(split, self.size, self.apparent, self.cues, self.picture_seed)
        file = user_cache_path("depthbal") / "faces" / f"{faces.key()}.npz"
        arrays = drawn_arrays(
            faces,
            {"images": ((self.size, self.size, 3), np.uint8)},
            file if self.cache else None,
            title=f"Drawing faces ({split})",
            workers=automatic_workers(),
        )
        return DrawnImages(arrays["images"], faces)

    def source_name(self) -> str:
        """Return what these pictures are, for people."""
        return (
            f"drawn faces, {self.size} x {self.size} pixels, that look {self.apparent:g} years "
            f"older or younger, picture seed {self.picture_seed}"
        )

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are, with how they were drawn."""
        return super().describe() | {
            "apparent": self.apparent,
            "cues": self.cues,
            "picture_seed": self.picture_seed,
            "drawing": DRAWING_VERSION,
        }
