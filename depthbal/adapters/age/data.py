"""Images with one scalar label each, and the csv form in which the age benchmarks are published."""

import copy
import csv
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from depthbal.data.dataset import SeededDataset
from depthbal.data.images import normalise, read_image, resize_square
from depthbal.data.label_data import SPLITS, LabelData, Split, announce, round_width
from depthbal.data.loader import PADDING
from depthbal.data.pairs import files_digest, on_disk
from depthbal.data.transforms import generators, shift_and_flip
from depthbal.errors import DataError
from depthbal.evaluation import Label, LabelBins
from depthbal.models.weights import first_few
from depthbal.priors import Histogram

MEAN = STD = (0.5, 0.5, 0.5)
_SPLITS: dict[str, str] = {name: name for name in SPLITS}
_SPLITS |= {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_NO_LABEL = ("", "nan", "na", "none", "null")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


class LabelledImages(SeededDataset[dict[str, Any]]):
    """Images pre-processed as published (Yang et al., ICML 2021), or their features.

    Square by Pillow's bilinear filter; in training a random crop after a black border, and
    horizontal flips. `images` are files or uint8 (H, W, 3) RGB; `content` is a digest of them and
    the labels; names that are `grouped` are what is resampled together. Padding has the label NaN.
    """

    features: Tensor | None = None  # (N, D) in place of the images, see depthbal.training.tuning

    def __init__(
        self,
        data: "LabelledData",
        split: Split,
        images: Any,
        names: Sequence[str],
        content: str,
        grouped: bool = False,
    ) -> None:
        super().__init__(data.seed)
        self.images, self.names, self.content, self.grouped = images, names, content, grouped
        self.labels = torch.cat([*data.labels(split)]).float()
        self.size, train = data.image_size, split == "train"
        self.augment = shift_and_flip(self.size, data.padding, data.flip) if train else None

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return an image, float32 (3, size, size) in [-1, 1], or its features, and its label."""
        name = self.names[index]
        about = {"label": self.labels[index], "index": index, "name": name}
        about["group"] = name if self.grouped else ""
        if self.features is not None:
            return {"features": self.features[index], **about}
        image = self.images[index]
        image = resize_square(read_image(image) if isinstance(image, Path) else image, self.size)
        if self.augment is not None:
            self.augment.set_random_state(*generators(seed))
            image = self.augment(image=image)["image"]
        return {"image": normalise(image, MEAN, STD), **about}

    def padding(self) -> dict[str, Any]:
        """Return the first sample without its label."""
        return {**self[0], "label": torch.tensor(float("nan")), "index": PADDING}

    def plain(self) -> Self:
        """Return the same images without augmentation."""
        other = copy.copy(self)
        other.augment = other.features = None
        return other

    def fingerprint(self) -> str:
        """Return a digest of labels and images, and their size."""
        return f"{self.content[:32]} {self.size}"


class LabelledData(LabelData):
    """Feed images with a scalar label each; a subclass gives `dataset` and `labels`.

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes; -1 chooses one per CPU up to 8, and none on a single CPU.
        seed: of shuffling and augmentation.
        image_size: pixels of either side of the images.
        padding: width of the black border of training images before a random crop of image_size.
        flip: probability of a horizontal flip in training.
        label: name of the label.
        unit: of the label; null: years of an age, else none.
        bin_width: width of the bins, in units of the label; bins are centred on its multiples.
            Null: 1 year, else about 100 bins.
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
        unit: str | None = None,
        bin_width: float | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.label = Label(label, ("years" if label == "age" else "") if unit is None else unit)
        self.image_size, self.padding, self.flip = image_size, padding, flip
        self.bin_width = 1.0 if bin_width is None and label == "age" else bin_width

    def train_histogram(self) -> Histogram:
        """Return the training labels' counts in bins over their own range."""
        if self.histogram is None:
            self.histogram = self._count("train")
        return self.histogram

    def bins(self) -> LabelBins:
        """Return bins over the labels of all splits, and the published shots."""
        counted = self._count(*SPLITS)
        return LabelBins.from_counts(counted.edges, counted.counts, many_above=100, few_below=20)

    def _count(self, *splits: Split) -> Histogram:
        """Return the training labels' counts in bins over the range of some splits."""
        every, chosen = (
            torch.cat([part for split in which for part in self.labels(split)]).double().numpy()
            for which in (SPLITS, splits)
        )
        width = self.bin_width or round_width(every)
        units = np.floor(chosen / width + 0.5)
        if np.ptp(units) > 10_000:
            raise DataError(
                f"labels from {every.min():g} to {every.max():g} are too many bins of {width:g}; "
                f"give --data.bin_width {round_width(every):g}, or null"
            )
        counted = Histogram((np.arange(units.min(), units.max() + 2) - 0.5) * width)
        for part in self.labels("train"):
            counted.update(part)
        return counted

    def fingerprint(self) -> str | None:
        """Return a digest of the training images."""
        return None if self.train_set is None else str(self.train_set.fingerprint())

    def input_spec(self) -> dict[str, Any]:
        """Return how an image must be prepared for a network trained on these data."""
        return {"short_side": None, "size": self.image_size, "mean": [*MEAN], "std": [*STD]}


class AgeDataModule(LabelledData):
    """Read images and labels by a csv file with a header, such as ``age,path,split``.

    This is the form of the published IMDB-WIKI-DIR and AgeDB-DIR benchmarks. Any label will do,
    whole or real, in a column of any name. Other columns are ignored, and rows may repeat.

    Args:
        root: the folder that the paths in the csv file are relative to.
        csv: the csv file, relative to `root` or absolute.
        label: the column that holds the label, and the label's name.
        **kwargs: as for `LabelledData`.

    Raises:
        DataError: naming the file: unusable rows, missing images; on access, unreadable ones.

    Example:
        >>> AgeDataModule("faces", "agedb.csv").csv.as_posix()
        'faces/agedb.csv'
    """

    def __init__(self, root: str | Path, csv: str | Path, *, label: str = "age", **kwargs: Any):
        super().__init__(label=label, **kwargs)
        self.root = Path(root).expanduser()
        self.csv = self.root / Path(csv).expanduser()

    def labels(self, split: Split) -> list[Tensor]:
        """Return the labels of a split in one tensor, (N,) float64."""
        labels = [float(label) for label, _, its in self.rows if its == split]
        return [torch.tensor(labels, dtype=torch.float64)]

    def dataset(self, split: Split) -> LabelledImages | None:
        """Return the images of a split, those of training augmented; None without rows."""
        if not (paths := [path for _, path, its in self.rows if its == split]):
            return None
        files = self._images(paths)
        content = files_digest(self.root, files, json.dumps(self.labels(split)[0].tolist()))
        return LabelledImages(self, split, [self.root / file for file in files], paths, content)

    def check_root(self) -> None:
        """Check the whole csv file, and that the images are there, without reading any."""
        self._images([row[1] for row in self.rows])

    @cached_property
    def rows(self) -> list[list[str]]:
        """Label, image path and split of every row of the csv file."""
        wanted = [name.lower() for name in (self.label.name, "path", "split")]
        try:
            with self.csv.open(encoding="utf-8-sig", newline="") as lines:
                header = lines.readline()
                mark = next((mark for mark in ";\t" if mark in header), ",")
                lines.seek(0)
                reader = csv.DictReader(lines, delimiter=mark, skipinitialspace=True)
                reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
                rows = [[(row.get(name) or "").strip() for name in wanted] for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{self.csv} is no readable csv file in UTF-8 (--data.csv): {error}"
            ) from error
        if not {*wanted} <= {*reader.fieldnames}:
            raise DataError(
                f"{self.csv}: expected the columns {', '.join(wanted)} (that of the label: "
                f"--data.label); they are {', '.join(reader.fieldnames)}"
            )
        for row in rows:
            row[0], row[2] = _number(row[0], mark), _SPLITS.get(row[2].lower(), row[2])
        faulty = [f"row {n}: {','.join(row)}" for n, row in enumerate(rows, 2) if not _usable(*row)]
        if faulty:
            raise DataError(
                f"{self.csv}: {len(faulty)} of {len(rows)} rows are unusable, {first_few(faulty)}: "
                f"expected a finite number as {self.label.name}, or nothing where there is none, a "
                "path, and train, val or test as split"
            )
        if unlabelled := sum(row[0] in _NO_LABEL for row in rows):
            announce(f"{self.csv}: {unlabelled} of {len(rows)} rows have no label and are left out")
            rows = [row for row in rows if row[0] not in _NO_LABEL]
        there = {row[2] for row in rows}
        if "train" not in there:
            raise DataError(f"{self.csv}: no row has train in the column 'split'")
        if "test" not in there:
            other = "val" if "val" in there else "train"
            announce(f"{self.csv} has no test split: its errors are those of the {other} split")
            rows += [[label, path, "test"] for label, path, its in rows if its == other]
        return rows

    def _images(self, paths: list[str]) -> list[str]:
        """Return the paths as the disk spells them; those that are not there are an error."""
        found = on_disk(self.root, paths)
        if missing := [path for path in paths if not found[path]]:
            raise DataError(
                f"{len(missing)} of {len(paths)} images are not in {self.root.absolute()}: "
                f"{first_few(missing)}; give --data.root the folder that the column 'path' of "
                f"{self.csv} is relative to, complete it, or remove the rows"
            )
        return [str(found[path]) for path in paths]


def _number(text: str, mark: str) -> str:
    """Return a number as Python writes it, of a country whose csv files have this mark."""
    point = "." if mark != "," else "" if _THOUSANDS.fullmatch(text) else ","
    return text.lower().replace(",", point)


def _usable(label: str, path: str, split: str) -> bool:
    try:
        number = label in _NO_LABEL or np.isfinite(float(label))
        return bool(number and path and split in SPLITS)
    except ValueError:
        return False
