"""Images with one scalar label each: data set and the common part of the data modules."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthbal.adapters.age.images import MEAN, STD, ImageTransform
from depthbal.data.dataset import SeededDataset
from depthbal.data.pairs import Image
from depthbal.data.sampler import PADDING
from depthbal.data.split_module import SplitDataModule
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import LabelBins
from depthbal.priors import Histogram

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
MANY_ABOVE, FEW_BELOW = 100, 20  # training labels per bin, as published
_MOST_BINS = 10_000


class LabelledImages(Protocol):
    """The images of a split and their labels, float64 (N,)."""

    labels: NDArray[np.float64]

    def image(self, index: int) -> Image:
        """Return one image, uint8 (H, W, 3) RGB."""
        ...

    def name(self, index: int) -> str:
        """Return what an error message or a result table calls this image."""
        ...

    def fingerprint(self) -> str:
        """Return a hex digest that changes when images or labels do."""
        ...


class LabelledDataset(SeededDataset[dict[str, Any]]):
    """Load and pre-process labelled images; padding has the label NaN.

    Samples have ``image`` (3, S, S), normalised, or ``features`` (D,) in its place where they are
    known; ``label`` () and ``index``.

    Args:
        source: the images and labels.
        transform: pre-processing of one image.
        seed: of the augmentation.
    """

    def __init__(self, source: LabelledImages, transform: ImageTransform, seed: int = 0) -> None:
        super().__init__(seed)
        self.source = source
        self.transform = transform
        self.features: Tensor | None = None  # (N, D) float32

    def __len__(self) -> int:
        return len(self.source.labels)

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return the image at an index, pre-processed, or its features."""
        label = torch.tensor(self.source.labels[index], dtype=torch.float32)
        if self.features is not None:
            return {"features": self.features[index], "label": label, "index": index}
        pixels = self.transform(self.source.image(index), seed)
        return {"image": pixels, "label": label, "index": index}

    def padding(self) -> dict[str, Any]:
        """Return the first sample without its label."""
        return {**self[0], "label": torch.tensor(float("nan")), "index": PADDING}


class LabelDataModule(SplitDataModule[LabelledDataset]):
    """Feed images with a scalar label each; subclasses say where they come from (`source`).

    Batches are dictionaries: ``image`` float32 (B, 3, S, S) in [-1, 1]; ``label`` float32 (B,);
    ``index`` (B,), -1 with the label NaN for padding, which counts nowhere.

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes; -1 chooses one per CPU up to 8, and none on a single CPU.
        seed: of shuffling and augmentation.
        image_size: pixels of either side of the images.
        padding: width of the black border of training images before a random crop of image_size.
        flip: probability of a horizontal flip in training.
        label: name of the label.
        unit: of the label.
        bin_width: width of the bins, in units of the label; bins are centred on its multiples.

    Raises:
        ConfigError: values outside their range.
        DataError: in `setup`, when files are missing or their content is plainly wrong.
    """

    def __init__(
        self,
        *,
        batch_size: int = 256,
        num_workers: int = -1,
        seed: int = 0,
        image_size: int = 224,
        padding: int = 16,
        flip: float = 0.5,
        label: str = "age",
        unit: str = "years",
        bin_width: float = 1.0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if not bin_width > 0:
            raise ConfigError(f"expected a positive --data.bin_width, got {bin_width:g}")
        self.label, self.unit, self.bin_width = label, unit, bin_width
        self.train_transform = ImageTransform(image_size, padding, flip)
        self.eval_transform = ImageTransform(image_size)

    # ---- what a subclass says ----

    def source(self, split: SplitName) -> LabelledImages | None:
        """Return the images of a split, or None for a validation split that does not exist."""
        raise NotImplementedError

    def labels(self, split: SplitName) -> NDArray[np.float64]:
        """Return the labels of a split, float64 (N,), without touching its images."""
        raise NotImplementedError

    # ---- splits ----

    def setup(self, stage: str | None = None) -> None:
        """Build and check the splits; only the test split for stage "test".

        Raises:
            DataError: images are missing or unreadable, or a split is empty.
        """
        if self.test_set is None:
            self.test_set = self._dataset("test", self.eval_transform)
        if stage != "test" and self.train_set is None:
            self.val_set = self._dataset("val", self.eval_transform)
            self.train_set = self._dataset("train", self.train_transform)

    def _dataset(self, split: SplitName, transform: ImageTransform) -> LabelledDataset | None:
        source = self.source(split)
        return None if source is None else LabelledDataset(source, transform, self.seed)

    # ---- labels ----

    def train_histogram(self) -> Histogram:
        """Return the training labels' counts in bins over their own range."""
        labels = self.labels("train")
        return Histogram(self._edges([labels])).update(labels)

    def label_range(self) -> tuple[float, float]:
        """Return the ends of the training labels' bins."""
        edges = self._edges([self.labels("train")])
        return float(edges[0]), float(edges[-1])

    def bins(self) -> LabelBins:
        """Return bins over the labels of all splits, with shots by the number of training labels.

        Many-shot bins hold more than 100 training labels, few-shot bins fewer than 20.
        """
        edges = self._edges([self.labels(split) for split in SPLITS])
        counts = Histogram(edges).update(self.labels("train")).counts
        return LabelBins.from_counts(edges, counts, MANY_ABOVE, FEW_BELOW)

    def _edges(self, labels: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        units = np.floor(np.concatenate(labels) / self.bin_width + 0.5)
        low, high = units.min(), units.max()
        if high - low >= _MOST_BINS:
            raise DataError(
                f"labels from {low * self.bin_width:g} to {high * self.bin_width:g} need "
                f"{high - low + 1:.0f} bins of width {self.bin_width:g}; mend labels that "
                "are far off, or give a larger --data.bin_width"
            )
        edges: NDArray[np.float64] = (np.arange(low, high + 2) - 0.5) * self.bin_width
        return edges

    # ---- what others ask ----

    def fingerprint(self) -> str:
        """Return a hex digest of the training images and of the bins."""
        train = self._require(self.train_set, "training").source.fingerprint()
        return hashlib.sha256(json.dumps([1, train, self.bin_width]).encode()).hexdigest()[:32]

    def source_name(self) -> str:
        """Return where the images come from, for people."""
        return type(self).__name__

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are: class, source, sizes, counts, fingerprint."""
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        return {
            "class": type(self).__name__,
            "source": self.source_name(),
            "images": {split: None if data is None else len(data) for split, data in sets.items()},
            "image_size": self.eval_transform.size,
            "label": self.label,
            "unit": self.unit,
            "bin_width": self.bin_width,
            "label_range": list(self.label_range()),
            "seed": self.seed,
            "fingerprint": None if self.train_set is None else self.fingerprint(),
        }

    def input_spec(self) -> dict[str, Any]:
        """Return how an image must be prepared for a network trained on these data."""
        return {
            "short_side": None,  # what the engine knows of any image: not resized by its short side
            "size": self.eval_transform.size,
            "mean": list(MEAN),
            "std": list(STD),
        }
