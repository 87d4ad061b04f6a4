"""Feature distribution smoothing (FDS): features of rare labels borrow statistics of near ones."""

import csv
import logging
import math
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from scipy.ndimage import correlate1d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from depthbal.data import DepthDataModule
from depthbal.data.loader import ShardSampler
from depthbal.data.pairs import PairSubset
from depthbal.errors import ConfigError, DataError
from depthbal.losses.label_weights import Smoothing, smoothing_kernel
from depthbal.priors.histogram import bin_per_label

log = logging.getLogger(__name__)

CHUNK = 2**22  # numbers that a step works on at once: what is held besides stays under 200 MB


class FeatureSmoothing(pl.Callback):
    """Calibrate the features before the network's last layer by statistics smoothed over labels.

    After every epoch a pass over the training images collects mean m1 and variance v1 of the
    features x of every label bin; from ``start_epoch`` on, training replaces x by
    (x - m1) sqrt(clip(v2 / v1)) + m2, where m2 and v2 are smoothed over bins. Validation and
    prediction do not: the network needs nothing of this when it is used. The pass sees the features
    as training does, by the statistics of the batch where there is batch normalisation, and leaves
    the network's buffers as they were. (The published code lets it drift them.) Bins without two
    features keep what they have, have no part in the smoothing and are not calibrated. (There, one
    never seen enters with mean 0 and variance 1.) A resumed training goes on as if it had not
    stopped.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021, section 3.2. As there,
    an epoch is calibrated by the statistics of the one before; its code takes those of two before.

    In a config::

        trainer:
          callbacks:
            - class_path: depthbal.training.FeatureSmoothing

    Args:
        layer: Name of the layer whose input is calibrated, as in ``network.named_modules()``; a
            linear layer or convolution. null takes the last one with a single output.
        kernel: Kernel over bins: gaussian, triangular or laplace.
        kernel_size: Bins under the kernel, odd.
        kernel_sigma: Width of the Gaussian and Laplace kernels in bins.
        momentum: Share of the running statistics that stays after an epoch.
        clip: Smallest and largest ratio of smoothed and own variance; published: [0.2, 5] for
            depth, [0.1, 10] for ages.
        start_epoch: First epoch, counted from 0, whose features are calibrated.
        subset: For depth, a csv list of training pairs over which alone the pass goes, without
            augmentation: a file, or its name beside the training list (published:
            nyu2_train_FDS_subset.csv, 600 images). null goes over the training set as it is
            trained on.
        edges: Edges of the label bins; null takes those of the training histogram. (For ages the
            published code pools those from 99 on and, on AgeDB, up to 3.)

    Raises:
        ConfigError: Settings out of range, no such layer, or no bins.

    Example:
        >>> FeatureSmoothing(kernel="laplace").start_epoch
        1
    """

    def __init__(
        self,
        layer: str | None = None,
        kernel: Smoothing = "gaussian",
        kernel_size: int = 5,
        kernel_sigma: float = 2.0,
        momentum: float = 0.9,
        clip: tuple[float, float] = (0.2, 5.0),
        start_epoch: int = 1,
        subset: str | None = None,
        edges: list[float] | None = None,
    ) -> None:
        if start_epoch < 1 or not 0 <= momentum < 1 or not 0 < clip[0] <= clip[1]:
            raise ConfigError(
                "expected start_epoch >= 1, 0 <= momentum < 1 and clip (lo, hi) with 0 < lo <= hi, "
                f"got start_epoch {start_epoch}, momentum {momentum} and clip {clip}"
            )
        self.kernel = smoothing_kernel(kernel, kernel_size, kernel_sigma)
        self.layer, self.subset, self.edges = layer, subset, edges
        self.momentum, self.clip, self.start_epoch = momentum, clip, start_epoch
        self.running: dict[str, Tensor] = {}  # edges (B + 1,), passes (B,); mean, variance (B, C)
        self._tables: tuple[Tensor, Tensor] | None = None
        self._labels: tuple[Tensor, Tensor | None] | None = None  # of the batch under way
        self._sums: Tensor | None = None  # of the pass under way
        self._loader: Iterable[Any] | None = None

    # ---- before and after training ----

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the layer and the subset's images."""
        if stage != "fit":
            return
        layer = find_layer(cast(Any, pl_module).model, self.layer)
        self._channels = layer.weight.shape[1] * getattr(layer, "groups", 1)
        self._hook = layer.register_forward_pre_hook(self._at_layer)
        if self.subset is not None:
            self._loader = subset_loader(cast(Any, trainer).datamodule, self.subset)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make room for the statistics, unless a checkpoint has brought them."""
        if not self.running:
            histogram = cast(Any, pl_module).histogram
            if self.edges is None and histogram is None:
                raise ConfigError("FeatureSmoothing without a data module: give edges of its bins")
            edges = np.array(self.edges or histogram.edges, dtype=np.float64)  # its owner's stay so
            if len(edges) < 2 or any(high <= low for low, high in pairwise(edges)):
                raise ConfigError(f"expected increasing edges of label bins, got {edges.tolist()}")
            empty = torch.zeros(len(edges) - 1, self._channels, dtype=torch.float64)
            passes = torch.zeros(len(edges) - 1, dtype=torch.int64)
            self.running = {"edges": torch.from_numpy(edges), "passes": passes}
            self.running |= {"mean": empty, "variance": empty}
        self.running = {name: value.to(pl_module.device) for name, value in self.running.items()}
        self._tables = calibration_tables(self.running, self.kernel, self.clip)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the network as it was."""
        if stage == "fit":
            self._hook.remove()
            self._labels = self._sums = None

    # ---- training ----

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the labels by which the layer's input is going to be calibrated."""
        if "image" not in batch:
            raise ConfigError(
                "FeatureSmoothing goes over images after every epoch, and batches have only "
                f"{', '.join(batch)}: give data with images, or leave the callback out"
            )
        if trainer.current_epoch >= self.start_epoch:
            self._labels = cast(Any, pl_module).target(batch)

    def on_train_batch_end(self, *_: Any) -> None:
        """Forget the labels: validation is not calibrated."""
        self._labels = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the statistics from the features of the training images."""
        task: Any = pl_module
        size = (3, len(self.running["edges"]), self._channels)
        sums = self._sums = torch.zeros(size, dtype=torch.float64, device=task.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            before = [(buffer, buffer.clone()) for buffer in task.model.buffers()]
            for batch in self._batches(trainer):
                batch = trainer.precision_plugin.convert_input(batch)
                batch = trainer.strategy.batch_to_device(batch, task.device)
                self._labels = task.target(batch)
                task.model(batch["image"])
            for buffer, value in before:  # running means of batch normalisation, above all
                buffer.copy_(value)
        self._labels = self._sums = None
        sums = cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        update_running(self.running, sums, self.momentum)
        self._tables = calibration_tables(self.running, self.kernel, self.clip)

    def _batches(self, trainer: pl.Trainer) -> Iterator[Any]:
        """Yield the batches of the subset, or those that an epoch trains on."""
        if self._loader is None:
            batches = trainer.num_training_batches
            limit = None if batches == float("inf") else int(batches)
            return islice(cast(Any, trainer.train_dataloader), limit)
        return islice(self._loader, int(cast(Any, trainer).fast_dev_run) or None)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _at_layer(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Collect or calibrate the layer's input."""
        if self._labels is None:
            return None
        features: Tensor = inputs[0]
        bins = feature_bins(*self._labels, self.running["edges"], tuple(features.shape[2:]))
        if self._sums is not None:
            add_features(self._sums, features, bins)
            return None
        assert self._tables is not None
        return Calibration.apply(features, bins, *self._tables), *inputs[1:]

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Return the running statistics."""
        return self.running

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the statistics of a checkpoint."""
        self.running = state_dict


# ---- bins, statistics, calibration ----


def feature_bins(
    target: Tensor, mask: Tensor | None, edges: Tensor, size: tuple[int, ...]
) -> Tensor:
    """Return every feature's label bin, int64 (N,) or (N, h, w); the last number is "no label".

    Dense features of another size than the labels get the label at their middle. Networks that
    extend their input at its lower right to a multiple of their stride have features of that
    extended input, so the features' pixels are taken to be 1, 2, 4, ... or 1/2, 1/4, ... of the
    labels', the smallest with which they cover them, aligned at the upper left; features beyond
    the labels have none.

    Args:
        target: Labels (N,) or (N, 1), or dense (N, 1, H, W); NaN is no label.
        mask: bool, as the labels; True counts. None where all do.
        edges: Bin edges in float64, (B + 1,).
        size: The features' size without their batch and channels: () or (h, w).
    """
    labels = target if target.is_floating_point() else target.float()
    counts = ~labels.isnan() if mask is None else mask & ~labels.isnan()
    none = len(edges) - 1
    bins = torch.where(counts, bin_per_label(labels, edges), none)
    if bins.ndim - len(size) not in (1, 2) or (bins.ndim > 1 + len(size) and bins.shape[1] != 1):
        raise ConfigError(
            f"expected one label per feature; got labels {tuple(target.shape)} and features of "
            f"size {size} per channel: name a layer with --trainer.callbacks.init_args.layer whose "
            "input has that form"
        )
    if not size:
        return bins.flatten()
    height, width = bins.shape[-2:]
    pixel = 2.0 ** math.ceil(math.log2(max(height / size[0], width / size[1])))
    rows, columns = (((torch.arange(n, device=bins.device) + 0.5) * pixel).long() for n in size)
    inside = (rows < height)[:, None] & (columns < width)
    maps = bins.reshape(len(bins), height, width)
    found = maps[:, rows.clamp(max=height - 1)[:, None], columns.clamp(max=width - 1)]
    return torch.where(inside, found, none)


def add_features(sums: Tensor, features: Tensor, bins: Tensor) -> None:
    """Add features (N, C) or (N, C, h, w) of their bins to count, sum and squares (3, B + 1, C)."""
    sums[0] += torch.bincount(bins.flatten(), minlength=sums.shape[1])[:, None]
    for part, index in _chunks(features, bins):
        rows = part.movedim(1, -1).flatten(0, -2).double()
        # this form of scatter is ten times as fast on a CPU as index_add
        where = index.reshape(-1, 1).expand_as(rows)
        sums[1].scatter_add_(0, where, rows)
        sums[2].scatter_add_(0, where, rows * rows)


def update_running(running: dict[str, Tensor], sums: Tensor, momentum: float) -> None:
    """Take an epoch's moments into the running ones; the first ones that a bin has become them."""
    count, total, squares = sums[:, :-1]
    number = count.clamp(min=1)
    mean, square = total / number, squares / number
    biased = square - mean**2
    # sums in float64 leave residues of this order where a channel is constant
    biased = torch.where(biased > 1e-12 * square, biased, 0.0)
    variance = biased * number / (number - 1).clamp(min=1)
    counted = count >= 2  # fewer features have no variance
    kept = momentum * (running["passes"] > 0).double()[:, None]
    for name, new in (("mean", mean), ("variance", variance)):
        mixed = kept * running[name] + (1 - kept) * new
        running[name] = torch.where(counted, mixed, running[name])
    running["passes"] = running["passes"] + counted[:, 0]


def calibration_tables(
    running: dict[str, Tensor], kernel: npt.NDArray[np.float64], clip: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return scale and shift (B + 1, C) of the features of every bin, and of those without one.

        (x - m1) sqrt(clip(v2 / v1)) + m2  =  scale x + shift

    The bins are mirrored at the ends without them, as published. What is not known, or constant in
    a bin, stays as it is.
    """
    known = running["passes"] > 0
    kernels = correlate1d(np.eye(len(known)), kernel, axis=0, mode="mirror")
    weights = torch.from_numpy(kernels).to(known.device) * known
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-300)
    mean, variance = running["mean"], running["variance"]
    varies = known[:, None] & (variance > 0)
    scale = torch.where(varies, (weights @ variance / variance).clamp(*clip).sqrt(), 1.0)
    shift = torch.where(varies, weights @ mean - scale * mean, 0.0)
    return F.pad(scale, (0, 0, 0, 1), value=1.0).float(), F.pad(shift, (0, 0, 0, 1)).float()


class Calibration(torch.autograd.Function):
    """scale[bins] * features + shift[bins]; backward keeps the bins and not a scale per feature."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bins: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the features' shape and dtype."""
        ctx.save_for_backward(bins, scale)
        out = torch.empty_like(features)
        for part, x, index in _chunks(out, features, bins):
            part.copy_(torch.addcmul(_rows(shift, index), x, _rows(scale, index)))
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Multiply the gradient by the scale."""
        bins, scale = ctx.saved_tensors
        out = torch.empty_like(gradient)
        for part, slope, index in _chunks(out, gradient, bins):
            part.copy_(slope * _rows(scale, index))
        return out, None, None, None


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table with the channels where features have them."""
    return table[index].movedim(-1, 1)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors in parts along their first dimension, of about `CHUNK` numbers of the first."""
    step = max(1, CHUNK // max(1, tensors[0][:1].numel()))
    yield from zip(*(torch.split(tensor, step) for tensor in tensors), strict=True)


# ---- which layer, which images ----


def find_layer(network: nn.Module, name: str | None = None) -> nn.Linear | nn.Conv2d:
    """Return the linear layer or convolution of a name, or the last one with one output."""
    kinds = (nn.Linear, nn.Conv2d)
    layers = {own: layer for own, layer in network.named_modules() if isinstance(layer, kinds)}
    found = [layer for layer in layers.values() if len(layer.weight) == 1]
    if name is not None:
        found = [layers[name]] if name in layers else []
    if not found:
        wanted = f" {name!r}" if name else " with one output; name one as layer, of whose input"
        raise ConfigError(
            f"{type(network).__name__} has no linear layer or convolution{wanted}; its last ones "
            f"are: {', '.join(list(layers)[-5:]) or 'none'}"
        )
    return found[-1]


def subset_loader(data: Any, name: str) -> Iterable[Any]:
    """Return a loader over the training images of a list, in its split's order, not augmented.

    The images are looked up by their names, so that packed data serve as well as folders, and
    those held out for validation stay out.
    """
    if not isinstance(data, DepthDataModule) or data.train_set is None:
        raise ConfigError(
            f"subset is a list of depth images, but the data come from {type(data).__name__}; "
            "leave subset out to go over the whole training set"
        )
    root = Path(getattr(data, "root", "."))
    places = [Path(name), root / "data" / name, root / name, root.parent / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"there is no list {name} for feature smoothing in {root / 'data'}, {root} or here; "
            "fetch it with the benchmark, or set subset to null to go over the whole training set"
        )
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = [[entry.strip().removeprefix("data/") for entry in row] for row in csv.reader(lines)]
    wanted = {" with ".join(pair) for pair in rows if any(pair)}
    train = data.train_set.source
    chosen = [index for index in range(len(train)) if train.name(index) in wanted]
    found = f"{len(chosen)} of the {len(wanted)} images of {path}"
    if not chosen:
        raise DataError(f"{found} are in the training split, such as {train.name(0)!r}")
    log.info("Feature smoothing: %s are in the training split", found)
    pairs = PairSubset(train, chosen)
    return data.loader(data.plain(pairs, "train"), ShardSampler(pairs))
