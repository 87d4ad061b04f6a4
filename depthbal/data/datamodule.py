"""The common part of all depth data modules: splits, checks, loaders, the training histogram."""

import hashlib
import json
import math
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from depthbal.data.cache import cache_file, cached
from depthbal.data.dataset import DepthDataset, check_split, padded, spread
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD
from depthbal.data.label_data import LabelData, Split, announce
from depthbal.data.loader import LateLoader, ShardSampler, single_threaded
from depthbal.data.pairs import PairSource, PairSubset, natural
from depthbal.data.splits import Division, hold_out
from depthbal.data.transforms import EvalTransform, TrainTransform
from depthbal.errors import ConfigError
from depthbal.evaluation import DepthBins, LabelBins
from depthbal.io import show_progress
from depthbal.priors import Histogram, Spacing

_COARSE = 0.05  # of a bin; finer levels change no count that matters
_TRIES = 10  # divisions that are drawn until one holds out depth
_BIN_WIDTH = 0.1  # metres, of NYUD2-DIR
_LOG_STEP, _QUANTILES = 1.07, 50  # from one edge of log bins to the next; bins

MOVED = dict.fromkeys(
    ("min_depth", "max_depth"),
    "give the range once, in its place: --data.depth_range LO HI, or in a config's data "
    "depth_range: [LO, HI]",
)
"""Options of version 0.1, of data and task, and what to write now."""


class DepthDataModule(LabelData):
    """Feed pairs of image and depth to training, validation and test.

    Subclasses say where the pairs come from: `train_source` and `test_source`, and `val_source`
    where validation has files of its own (else `val_fraction` of the training pairs is held out,
    by whole groups where there are at least ten, else by contiguous blocks).

    Batches are dictionaries: ``image`` float32 (B, 3, H, W), normalised; ``depth`` float32
    (B, 1, h, w) in metres with 0 = no depth; ``index`` (B,), -1 for padding without depth; and
    where the data have such pixels ``beyond``, of depth's shape, True for those that are only known
    to lie beyond the range, such as sky.

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes; -1 chooses one per CPU up to 8, and none on a single CPU.
        seed: of shuffling, augmentation and the validation split.
        short_side: pixels of the shorter image side after resizing; null keeps the size.
        crop_size: (height, width) of the crop; null keeps everything.
        crop_at: where it lies, in the centre, or at the bottom of the middle columns.
        depth_size: (height, width) of the training depth, or its share of the image's sides; null
            keeps the image's.
        rotation: largest rotation in degrees, either way.
        flip: probability of a horizontal flip.
        lighting: standard deviation of the colour shift along ImageNet's principal axes.
        jitter: largest relative change of brightness, contrast and saturation.
        depth_range: metres between which depth counts: of the training histogram, the bins, the
            loss's label range and the network's head, none of which is told again.
        bin_width: width of the training histogram's bins in metres; null: 0.1, or a hundredth of a
            range of less than 2 m.
        bin_spacing: what the bins of evaluation, validation and report are: "uniform", those of the
            histogram; "log", each the same share of its depth wide, for long ranges; "quantile", as
            many training pixels in each. Shots follow the density per metre as always.
        bin_count: how many; null: the histogram's, log bins of about 7 %, 50 quantiles.
        val_fraction: share of the training pairs held out for validation; 0 for none.
        measured_beyond: whether depth measured beyond the range is known to lie there, and no hole.

    Raises:
        ConfigError: values outside their range.
        DataError: in `setup`, when files are missing or plainly wrong; names them.
    """

    zero_is_label: bool = False  # NaN and not 0 is what stands where there is no label
    benchmark: ClassVar[str | None] = None  # named where the shots are a published fact
    quantum: float | None = None  # metres per level of coarsely quantised training depth
    tested_on: Split = "test"  # the split whose pictures are those of the test split
    balanced_mask_file: Path | None = None  # the official mask of balanced test pixels

    def __init__(
        self,
        *,
        batch_size: int = 16,
        num_workers: int = -1,
        seed: int = 0,
        short_side: int | None = 240,
        crop_size: tuple[int, int] | None = None,
        depth_size: tuple[int, int] | float | None = 0.5,
        rotation: float = 5.0,
        flip: float = 0.5,
        lighting: float = 0.1,
        jitter: float = 0.4,
        depth_range: tuple[float, float] = (0.7, 10.0),
        bin_width: float | None = None,
        bin_spacing: Spacing = "uniform",
        bin_count: int | None = None,
        val_fraction: float = 0.05,
        crop_at: Literal["centre", "bottom"] = "centre",
        measured_beyond: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        none = math.nan if self.zero_is_label else 0.0
        self.collate = partial(padded, none=none)
        low, high = self.depth_range = (float(depth_range[0]), float(depth_range[1]))
        least = -math.inf if self.zero_is_label else 0
        if not least < low < high < math.inf:
            raise ConfigError(f"expected depth_range LO HI with 0 < LO < HI, got {low:g} {high:g}")
        span = high - low
        bins = round(span / _BIN_WIDTH) if span >= 20 * _BIN_WIDTH else 100
        self.bin_width = bin_width or float(f"{span / bins:.12g}")
        self.val_fraction, self.measured_beyond = val_fraction, measured_beyond
        self.train_transform = TrainTransform(
            short_side, crop_size, depth_size, rotation, flip, lighting, jitter, crop_at, none
        )
        self.eval_transform = EvalTransform(short_side, crop_size, None, crop_at, none)
        self.count_transform = self.train_transform.sizes
        self.label = self.label._replace(range=self.depth_range)
        if bin_spacing == "log":
            bin_count = bin_count or round(math.log(high / low) / math.log(_LOG_STEP))
        elif bin_spacing == "quantile":
            bin_count = bin_count or _QUANTILES
        self.bin_spacing, self.bin_count = bin_spacing, bin_count
        self.empty_histogram()  # a range that is no whole number of bins fails here already

    def train_source(self) -> PairSource:
        """Return the training pairs, validation not yet taken out."""
        raise NotImplementedError

    def test_source(self) -> PairSource:
        """Return the test pairs."""
        raise NotImplementedError

    def val_source(self) -> PairSource | None:
        """Return validation pairs of their own; None takes `val_fraction` of the training pairs."""
        return None

    def trains(self) -> bool:
        """Whether there are training pairs; without them there are no shots."""
        return True

    def dataset(self, split: Split) -> DepthDataset | None:
        """Return the samples of a split, judged by some pairs; the others are when loaded."""
        source = self.test_source() if split == "test" else self._training[split]
        if source is None:
            return None
        if not len(source):
            raise ConfigError(
                f"no pairs are left for the {split} split: val_fraction and test_fraction below 1"
            )
        data = self.plain(source, split)
        check_split(data, self.depth_range[0], split, self.label)
        if split == "train":
            dtype, step = source.levels or (None, 0.0)
            if dtype is not None and dtype.kind in "iu" and step > _COARSE * self.bin_width:
                self.quantum = step
            data.transform = self.train_transform
        return data

    def plain(self, source: PairSource, split: Split) -> DepthDataset:
        """Return the samples of a split without augmentation."""
        transform = self.count_transform if split == "train" else self.eval_transform
        end = self.depth_range[1]
        return DepthDataset(source, transform, self.seed, end, self.measured_beyond)

    @cached_property
    def _training(self) -> dict[str, PairSource | None]:
        train, val = self.train_source(), self.val_source()
        if val is None and self.val_fraction != 0:
            split = self.divided(train, self.val_fraction)
            announce(f"Validation: {split.message}")
            val = PairSubset(train, split.held_out) if split.held_out else None
            train = PairSubset(train, split.kept)
        return {"train": train, "val": val}

    def divided(self, source: PairSource, fraction: float) -> Division:
        """Divide pairs; where chance holds out none with depth, it has another try.

        Blocks are of neighbours by name: a list may be shuffled.
        """
        order = sorted(range(len(source)), key=lambda index: natural(source.name(index)))
        groups = [source.group(index) for index in order]
        low, high = self.depth_range
        for seed in range(self.seed, self.seed + _TRIES):
            split = hold_out(groups, fraction, seed)
            kept, held_out = (sorted(order[place] for place in part) for part in split[:2])
            split = split._replace(kept=kept, held_out=held_out)
            chosen = [split.held_out[place] for place in spread(len(split.held_out))]
            depths = map(source.load_depth, chosen)
            if not chosen or any(((depth >= low) & (depth <= high)).any() for depth in depths):
                break
        return split

    def empty_histogram(self) -> Histogram:
        """Return an empty histogram over depth_range in steps of bin_width."""
        try:
            return Histogram.regular(*self.depth_range, self.bin_width, self.quantum)
        except ValueError as error:
            raise ConfigError(f"{error}; give another --data.bin_width, or null") from error

    def train_histogram(self) -> Histogram:
        """Return the counts of training depth without augmentation, made once and then cached."""

        def count() -> Histogram:
            maps = self.plain(self.built("train").source, "train")
            loader: LateLoader[Any] = LateLoader(
                range(len(maps)),  # type: ignore[arg-type]
                batch_size=None,
                collate_fn=maps.depth,  # type: ignore[arg-type]
                num_workers=self.num_workers,
                worker_init_fn=single_threaded,
            )
            histogram, title = self.empty_histogram(), "Counting training depth"
            for depth in track(loader, title, transient=True, disable=not show_progress()):
                histogram.update(depth[depth >= self.depth_range[0]])
            return histogram

        if self.histogram is None:
            file = cache_file("histograms", f"{self.fingerprint()}.json")
            self.histogram = cached(file, Histogram.load, count, lambda to, made: made.save(to))
        return self.histogram

    def labels(self, split: Split) -> Iterable[Tensor]:
        """Yield the depth maps of a split, (1, h, w) metres, not augmented.

        0 is no depth, and inf what is only known to lie beyond the range.
        """
        maps = self.plain(self.built(split).source, split)
        return (maps.depth(index) for index in range(len(maps)))

    def bins(self) -> LabelBins:
        """Return the benchmark's bins and shots, those of the training histogram, or no shots."""
        if self.benchmark == "nyud2_dir" and self.bin_count is None:
            return DepthBins.nyud2()
        untrained = self.histogram is None and not self.trains()
        histogram = self.empty_histogram() if untrained else self.train_histogram()
        if untrained:
            histogram.counts += 1
        if self.bin_count is not None:
            histogram = histogram.rebinned(self.bin_edges(histogram, self.bin_count))
        kind = LabelBins if self.zero_is_label else DepthBins
        bins = kind.from_histogram(histogram)
        return kind(bins.edges, scored=bins.scored) if untrained else bins

    def bin_edges(self, histogram: Histogram, count: int) -> NDArray[np.float64]:
        """Return the edges of so many bins of the spacing that was asked for."""
        try:
            return histogram.places(count + 1, self.bin_spacing)
        except ValueError as error:
            raise ConfigError(f"{error}; give a smaller --data.bin_count") from error

    def whole_images(self) -> DataLoader[Any]:
        """Return a loader of the test images one by one, the truth at its file's own size."""
        test = self.plain(self.built("test").source, "test")
        test.transform = self.eval_transform.whole
        return LateLoader(test, sampler=ShardSampler(test), worker_init_fn=single_threaded)

    def fingerprint(self) -> str:
        """Return a hex digest of all that the training histogram depends on."""
        sizes = self.count_transform
        settings = {
            "format": 2,
            "content": self.built("train").source.fingerprint(),
            "sizes": [sizes.short_side, sizes.crop_size, sizes.depth_size],
            "bins": [*self.depth_range, self.bin_width, self.quantum],
        }
        if sizes.crop_at != "centre":
            settings["crop_at"] = sizes.crop_at
        if self.built("train").beyond:
            settings["beyond"] = self.built("train").beyond_from
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are: class, source, sizes, counts, fingerprint."""
        named = ["benchmark", "tested_on", "depth_range", "bin_width", "quantum"]
        named += ["bin_spacing", "bin_count"] * (self.bin_count is not None)
        settings = {name: getattr(self, name) for name in named} | vars(self.count_transform)
        if self.test_set is not None:
            settings["picture_share"] = round(self.test_set.share, 4)  # that counts
        if math.isnan(settings.pop("none")):
            settings["zero_is_label"] = True
        settings = {k.replace("depth", self.label.name): value for k, value in settings.items()}
        plain: dict[str, Any] = json.loads(json.dumps(settings))  # lists, as a file has them
        return super().describe() | {"source": self.source_name()} | plain

    def source_name(self) -> str:
        """Return where the pairs come from, for people: a folder or a description."""
        return type(self).__name__

    def input_spec(self) -> dict[str, Any]:
        """Return how an image must be prepared for a network trained on these data."""
        short_side, mean, std = self.eval_transform.short_side, IMAGENET_MEAN, IMAGENET_STD
        return {"short_side": short_side, "mean": list(mean), "std": list(std)}
