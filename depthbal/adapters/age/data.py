"""Images with one scalar label each, and the csv form in which the age benchmarks are published."""

import copy
import csv
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from depthbal.data.dataset import SeededDataset
from depthbal.data.files import files_digest, missing_files
from depthbal.data.images import normalise, read_image
from depthbal.data.label_data import LabelData, Split
from depthbal.data.pairs import Image
from depthbal.data.sampler import PADDING
from depthbal.data.transforms import generators, shift_and_flip
from depthbal.errors import DataError
from depthbal.evaluation import Label, LabelBins
from depthbal.priors import Histogram

MEAN = STD = (0.5, 0.5, 0.5)
MANY_ABOVE, FEW_BELOW = 100, 20  # training labels per bin, as published
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_MOST_BINS = 10_000
_SHOWN = 5  # faulty rows or missing files that a message names

Labels = NDArray[np.float64]


class Samples(NamedTuple):
    """A split: images uint8 (H, W, 3) RGB by index, labels (N,) and names, and where it is from."""

    images: Any
    labels: Labels
    names: list[str]
    fingerprint: str
    independent: bool = False  # no two images show the same person


class LabelledImages(SeededDataset[dict[str, Any]]):
    """Images pre-processed as published, or their features; padding has the label NaN.

    `size` pixels square by Pillow's bilinear filter, which widens where it shrinks; in training a
    random crop of as many after a black border of `padding`, and horizontal flips (Yang et al.,
    "Delving into Deep Imbalanced Regression", ICML 2021).
    """

    features: Tensor | None = None  # (N, D), see depthbal.training.frozen

    def __init__(
        self, samples: Samples, size: int, padding: int = 0, flip: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(seed)
        self.samples, self.size = samples, size
        self.augment = shift_and_flip(size, padding, flip)

    def __len__(self) -> int:
        return len(self.samples.labels)

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return an image, float32 (3, size, size) in [-1, 1], or its features, and its label."""
        name = self.samples.names[index]
        if self.features is not None:
            content = {"features": self.features[index]}
        else:
            content = {"image": self._prepare(self.samples.images[index], seed)}
        return {
            **content,
            "label": torch.tensor(self.samples.labels[index], dtype=torch.float32),
            "index": index,
            "name": name,
            "group": name if self.samples.independent else "",
        }

    def padding(self) -> dict[str, Any]:
        """Return the first sample without its label."""
        return {**self[0], "label": torch.tensor(float("nan")), "index": PADDING}

    def plain(self) -> Self:
        """Return the same images without augmentation."""
        other = copy.copy(self)
        other.augment = other.features = None
        return other

    def fingerprint(self) -> str:
        """Return a digest of labels, images and their size."""
        return f"{self.samples.fingerprint} {self.size}"

    def _prepare(self, image: Image, seed: int) -> Tensor:
        if image.shape[:2] != (self.size, self.size):
            pixels = torch.tensor(image).permute(2, 0, 1)[None]
            pixels = interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
            image = pixels[0].permute(1, 2, 0).numpy()
        if self.augment is not None:
            self.augment.set_random_state(*generators(seed))
            image = self.augment(image=image)["image"]
        return normalise(image, MEAN, STD)


class LabelledData(LabelData):
    """Feed images with a scalar label each; subclasses give `samples` and `all_labels`.

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
        self.label = Label(label, unit)
        self.image_size, self.bin_width = image_size, bin_width
        self.augmentation = {"padding": padding, "flip": flip, "seed": seed}

    def samples(self, split: Split) -> Samples | None:
        """Return a split; None where there is no such split."""
        raise NotImplementedError

    def all_labels(self, split: Split) -> Labels:
        """Return the labels of a split, (N,), without touching its images."""
        raise NotImplementedError

    def dataset(self, split: Split) -> LabelledImages | None:
        """Return the images of a split, those of training augmented."""
        found, more = self.samples(split), self.augmentation if split == "train" else {}
        return None if found is None else LabelledImages(found, self.image_size, **more)

    def labels(self, split: Split) -> Sequence[Tensor]:
        """Return the labels of a split in one tensor, (N,) float64."""
        return [torch.from_numpy(self.all_labels(split))]

    def train_histogram(self) -> Histogram:
        """Return the training labels' counts in bins over their own range."""
        if self.histogram is None:
            labels = self.all_labels("train")
            self.histogram = Histogram(self._edges(labels)).update(labels)
        return self.histogram

    def label_range(self) -> tuple[float, float]:
        """Return the ends of the training labels' bins."""
        edges = self.train_histogram().edges
        return float(edges[0]), float(edges[-1])

    def bins(self) -> LabelBins:
        """Return bins over the labels of all splits; many-shot: above 100 training labels, few-shot:
        below 20, as published."""
        edges = self._edges(*map(self.all_labels, SPLITS))
        counts = Histogram(edges).update(self.all_labels("train")).counts
        return LabelBins.from_counts(edges, counts, MANY_ABOVE, FEW_BELOW)

    def _edges(self, *labels: Labels) -> Labels:
        units = np.floor(np.concatenate(labels) / self.bin_width + 0.5)
        low, high = units.min(), units.max()
        if high - low >= _MOST_BINS:
            ends = f"{low * self.bin_width:g} to {high * self.bin_width:g}"
            raise DataError(f"labels from {ends} need a larger --data.bin_width, or are wrong")
        edges: Labels = (np.arange(low, high + 2) - 0.5) * self.bin_width
        return edges

    def fingerprint(self) -> str:
        """Return a digest of the training images and of the bins."""
        text = f"{self.train_set.fingerprint()} {self.bin_width}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are."""
        bins = {"bin_width": self.bin_width, "label_range": list(self.label_range())}
        return {**super().describe(), "image_size": self.image_size, **bins}

    def input_spec(self) -> dict[str, Any]:
        """Return how an image must be prepared for a network trained on these data."""
        spec = {"short_side": None, "size": self.image_size}
        return {**spec, "mean": list(MEAN), "std": list(STD)}


class ImageFiles:
    """Image files under a folder by their index, read when asked for."""

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root, self.paths = root, paths

    def __getitem__(self, index: int) -> Image:
        """Return an image, uint8 (H, W, 3) RGB."""
        return read_image(self.root / self.paths[index])


class AgeDataModule(LabelledData):
    """Read images and labels by a csv file with a header, such as ``age,path,split``.

    This is the form of the published IMDB-WIKI-DIR and AgeDB-DIR benchmarks. Any label will do:
    whole or real numbers, in a column of any name. The split is ``train``, ``val`` or ``test``;
    other columns are ignored, and rows may repeat.

    Args:
        root: the folder that the paths in the csv file are relative to.
        csv: the csv file, relative to `root` or absolute.
        label: the column that holds the label, and the label's name.
        **kwargs: as for `LabelledData`.

    Raises:
        DataError: naming file and rows: missing columns, labels that are no finite numbers, unknown
            splits, no training or test rows; in `check_root` and `setup`, missing images; on
            access, images that are truncated or unreadable.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = "age,path,split\\n31,a.png,train\\n7,b.png,test\\n"
        >>> _ = (folder / "ages.csv").write_text(rows)
        >>> AgeDataModule(folder, "ages.csv").bins().shots[-1]  # of a single image of age 31
        'few'
    """

    def __init__(self, root: str | Path, csv: str | Path, *, label: str = "age", **kwargs: Any):
        super().__init__(label=label, **kwargs)
        self.root = Path(root).expanduser()
        self.csv = self.root / Path(csv).expanduser()

    @cached_property
    def rows(self) -> dict[Split, tuple[Labels, list[str]]]:
        """Labels and image paths of every split."""
        return read_labels_csv(self.csv, self.label.name)

    def all_labels(self, split: Split) -> Labels:
        """Return the labels of a split, (N,)."""
        return self.rows[split][0]

    def samples(self, split: Split) -> Samples | None:
        """Return the images of a split; None for validation without rows."""
        labels, paths = self.rows[split]
        if not paths:
            return None
        self._require_images(paths)
        content = files_digest(self.root, paths, json.dumps(labels.tolist()))
        return Samples(ImageFiles(self.root, paths), labels, paths, content)

    def check_root(self) -> None:
        """Check the whole csv file, and that the images are there, without reading any."""
        self.bins()
        self._require_images([path for _, paths in self.rows.values() for path in paths])

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are."""
        return {**super().describe(), "source": str(self.csv.absolute())}

    def _require_images(self, paths: list[str]) -> None:
        if missing := [path for _, path in missing_files(self.root, paths)]:
            raise DataError(
                f"{len(missing)} of {len(paths)} images are not in {self.root.absolute()}: "
                f"{_first(missing)}; give --data.root the folder that the column 'path' of "
                f"{self.csv} is relative to, complete it, or remove the rows"
            )


def read_labels_csv(file: Path, label: str) -> dict[Split, tuple[Labels, list[str]]]:
    """Return labels (N,) and image paths of every split in a csv file; see `AgeDataModule`."""
    wanted = (label, "path", "split")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            if lacking := [name for name in wanted if name not in columns]:
                raise DataError(
                    f"{file} has no column {' and '.join(lacking)}, only {', '.join(columns)}; "
                    "--data.label names the column of the label"
                )
            rows = [
                (f"row {reader.line_num}", *((row[name] or "").strip() for name in wanted))
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read ({error}); give --data.csv a csv text file, relative to "
            "--data.root or absolute"
        ) from error
    if faulty := [": ".join((row[0], ",".join(row[1:]))) for row in rows if not _is_sample(*row)]:
        raise DataError(
            f"{file}: {len(faulty)} of {len(rows)} rows are unusable ({_first(faulty)}); expected a "
            f"finite number as {label} (--data.label takes another column), a path, and train, val "
            "or test"
        )
    found: dict[Split, tuple[Labels, list[str]]] = {}
    for split in SPLITS:
        own = [row for row in rows if row[3] == split]
        found[split] = np.array([float(row[1]) for row in own]), [row[2] for row in own]
        if not own and split != "val":
            raise DataError(f"{file}: no row has {split!r} in the column 'split'")
    return found


def _is_sample(row: str, value: str, path: str, split: str) -> bool:
    try:
        return bool(np.isfinite(float(value)) and path and split in SPLITS)
    except ValueError:
        return False


def _first(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
