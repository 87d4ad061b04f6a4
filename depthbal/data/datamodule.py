"""The common part of all data modules: splits, checks, loaders and the training histogram."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.utils.data import DataLoader

from depthbal.data.checks import check_split
from depthbal.data.dataset import DepthDataset, WholeImages
from depthbal.data.histogram import DepthOnly, cached_histogram, count_depth, depth_loader
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD
from depthbal.data.label_data import LabelData, Split, announce
from depthbal.data.loader import LateLoader, single_threaded
from depthbal.data.pairs import PairSource, PairSubset
from depthbal.data.sampler import ShardSampler
from depthbal.data.splits import hold_out
from depthbal.data.transforms import EvalTransform, TrainTransform
from depthbal.errors import ConfigError
from depthbal.evaluation import DEPTH, DepthBins
from depthbal.priors import Histogram

_HISTOGRAM_BATCH = 16


class DepthDataModule(LabelData):
    """Feed pairs of image and depth to training, validation and test.

    Subclasses say where the pairs come from: `train_source` and `test_source`, and `val_source`
    where validation has files of its own (else `val_fraction` of the training pairs is held out,
    by whole groups where there are at least ten, else by contiguous blocks).

    Batches are dictionaries: ``image`` float32 (B, 3, H, W), normalised; ``depth`` float32
    (B, 1, h, w) in metres with 0 = no depth; ``index`` (B,), -1 for padding without depth.

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes; -1 chooses one per CPU up to 8, and none on a single CPU.
        seed: of shuffling, augmentation and the validation split.
        short_side: pixels of the shorter image side after resizing; null keeps the size.
        crop_size: (height, width) of the centre crop; null keeps everything.
        depth_size: (height, width) of the training depth; null keeps the image's.
        rotation: largest rotation in degrees, either way.
        flip: probability of a horizontal flip.
        lighting: standard deviation of the colour shift along ImageNet's principal axes.
        jitter: largest relative change of brightness, contrast and saturation.
        min_depth: metres below which depth counts nowhere.
        max_depth: upper end of the training histogram in metres.
        bin_width: width of the training histogram's bins in metres.
        val_fraction: share of the training pairs held out for validation; 0 for none.

    Raises:
        ConfigError: values outside their range.
        DataError: in `setup`, when files are missing or their content is plainly wrong.
    """

    benchmark: ClassVar[str | None] = None  # named where the shots are a published fact
    quantum: float | None = None  # metres per level of coarsely quantised training depth
    balanced_mask_file: Path | None = None  # the official mask of balanced test pixels

    def __init__(
        self,
        *,
        batch_size: int = 16,
        num_workers: int = -1,
        seed: int = 0,
        short_side: int | None = 240,
        crop_size: tuple[int, int] | None = (228, 304),
        depth_size: tuple[int, int] | None = (114, 152),
        rotation: float = 5.0,
        flip: float = 0.5,
        lighting: float = 0.1,
        jitter: float = 0.4,
        min_depth: float = 0.7,
        max_depth: float = 10.0,
        bin_width: float = 0.1,
        val_fraction: float = 0.05,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if not 0 <= val_fraction < 1:
            raise ConfigError(
                f"expected val_fraction of at least 0 and below 1, got {val_fraction}"
            )
        if not 0 < min_depth < max_depth:
            raise ConfigError(f"expected 0 < min_depth < max_depth, got {min_depth}, {max_depth}")
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.bin_width = bin_width
        self.val_fraction = val_fraction
        self.train_transform = TrainTransform(
            short_side, crop_size, depth_size, rotation, flip, lighting, jitter
        )
        self.eval_transform = EvalTransform(short_side, crop_size)
        self.count_transform = EvalTransform(short_side, crop_size, depth_size)
        self.label = DEPTH._replace(range=(min_depth, max_depth))
        self.empty_histogram()  # a range that is no whole number of bins fails here already

    # ---- what a subclass says ----

    def train_source(self) -> PairSource:
        """Return the training pairs, validation not yet taken out."""
        raise NotImplementedError

    def test_source(self) -> PairSource:
        """Return the test pairs."""
        raise NotImplementedError

    def val_source(self) -> PairSource | None:
        """Return validation pairs of their own; None takes `val_fraction` of the training pairs."""
        return None

    # ---- splits ----

    def setup(self, stage: str | None = None) -> None:
        """Build and check the splits; only the test split for stage "test".

        Unit, range and sizes are judged by some pairs of each split; every other pair is checked
        when it is loaded.

        Raises:
            DataError: files are missing, damaged or plainly wrong; names them.
        """
        if self.test_set is None:
            test = DepthDataset(self.test_source(), self.eval_transform, self.seed)
            check_split(test, self.min_depth, "test")
            self.test_set = test
        if stage != "test" and self.train_set is None:
            self._setup_training()

    def _setup_training(self) -> None:
        train, val = self.train_source(), self.val_source()
        if val is None and self.val_fraction > 0:
            groups = [train.group(index) for index in range(len(train))]
            split = hold_out(groups, self.val_fraction, self.seed)
            announce(f"Validation: {split.message}")
            train, val = PairSubset(train, split.kept), PairSubset(train, split.held_out)
        check_split(DepthDataset(train, self.count_transform), self.min_depth, "training")
        if val is not None:
            self.val_set = DepthDataset(val, self.eval_transform, self.seed)
            check_split(self.val_set, self.min_depth, "validation")
        self.train_set = DepthDataset(train, self.train_transform, self.seed)

    # ---- the training labels' distribution ----

    def empty_histogram(self) -> Histogram:
        """Return an empty histogram over [min_depth, max_depth] in steps of bin_width.

        Raises:
            ConfigError: the range is no whole number of bins.
        """
        try:
            return Histogram.regular(self.min_depth, self.max_depth, self.bin_width, self.quantum)
        except ValueError as error:
            raise ConfigError(f"min_depth, max_depth, bin_width: {error}") from error

    def train_histogram(self, progress: bool = True) -> Histogram:
        """Count the training split's depth after deterministic pre-processing, at `depth_size`.

        The first call streams over all training depth; later ones, in other processes too, read
        the result from the user's cache directory, under `fingerprint`.

        Args:
            progress: show a progress bar.

        Raises:
            DataError: no pixel has a depth of at least `min_depth`, or a file is unreadable.
        """
        if self.histogram is not None:
            return self.histogram
        train = self._require(self.train_set, "training")

        def count() -> Histogram:
            loader = depth_loader(
                train.source, self.count_transform, _HISTOGRAM_BATCH, self.num_workers
            )
            return count_depth(loader, self.empty_histogram(), self.min_depth, progress)

        self.histogram = cached_histogram(self.fingerprint(), count)
        return self.histogram

    def labels(self, split: Split) -> Iterable[Tensor]:
        """Yield the depth maps of a split, (1, h, w) metres with 0 = no depth.

        Those of training have `depth_size`, the others the size at which they are scored.
        """
        data = self._require(getattr(self, f"{split}_set"), split)
        maps = DepthOnly(
            data.source, self.count_transform if split == "train" else self.eval_transform
        )
        return (maps[index] for index in range(len(maps)))

    def bins(self) -> DepthBins:
        """Return the benchmark's bins and shots, or those of the training histogram."""
        if self.benchmark == "nyud2_dir":
            return DepthBins.nyud2()
        return DepthBins.from_histogram(self.train_histogram())

    def whole_images(self) -> DataLoader[Any]:
        """Return a loader of the test images one by one, the truth at its file's own size."""
        test = WholeImages(self._require(self.test_set, "test").source, self.eval_transform)
        return LateLoader(test, sampler=ShardSampler(test), worker_init_fn=single_threaded)

    def fingerprint(self) -> str:
        """Return a hex digest of all that the training histogram depends on."""
        train = self._require(self.train_set, "training")
        sizes = self.count_transform
        settings = {
            "format": 1,
            "content": train.source.fingerprint(),
            "sizes": [sizes.short_side, sizes.crop_size, sizes.depth_size],
            "bins": [self.min_depth, self.max_depth, self.bin_width, self.quantum],
        }
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]

    # ---- what others ask ----

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are: class, source, sizes, counts, fingerprint."""
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        sizes = self.count_transform
        return {
            "class": type(self).__name__,
            "source": self.source_name(),
            "benchmark": self.benchmark,
            "images": {split: None if data is None else len(data) for split, data in sets.items()},
            "short_side": sizes.short_side,
            "crop_size": sizes.crop_size and list(sizes.crop_size),
            "depth_size": sizes.depth_size and list(sizes.depth_size),
            "min_depth": self.min_depth,
            "max_depth": self.max_depth,
            "bin_width": self.bin_width,
            "quantum": self.quantum,
            "seed": self.seed,
            "fingerprint": None if self.train_set is None else self.fingerprint(),
        }

    def source_name(self) -> str:
        """Return where the pairs come from, for people: a folder or a description."""
        return type(self).__name__

    def input_spec(self) -> dict[str, Any]:
        """Return how an image must be prepared for a network trained on these data."""
        return {
            "short_side": self.count_transform.short_side,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
        }
