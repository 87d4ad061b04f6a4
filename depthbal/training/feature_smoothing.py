"""Feature distribution smoothing of any network's last layer, as a callback of the training."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from depthbal.errors import ConfigError
from depthbal.losses.label_weights import Smoothing
from depthbal.models.feature_bins import feature_bins
from depthbal.models.feature_smoothing import FeatureDistributionSmoothing
from depthbal.models.feature_statistics import FeatureStatistics
from depthbal.training.feature_layer import find_layer, input_channels
from depthbal.training.feature_subset import subset_loader
from depthbal.training.task import Task

Labels = tuple[Tensor, Tensor | None]


class FeatureSmoothing(pl.Callback):
    """Calibrate the features before the network's last layer by statistics smoothed over labels.

    After every epoch a pass over the training images collects mean and variance of the features
    per label bin; from ``start_epoch`` on, training calibrates features with them (see
    `FeatureDistributionSmoothing`). Validation and prediction do not: the network needs nothing of
    this when it is used. The pass sees the features as training does, by the statistics of the
    batch where there is batch normalisation, and leaves the network's buffers as they were. (The
    published code lets it drift them.) A resumed training goes on as if it had not stopped.

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
        if start_epoch < 1:
            raise ConfigError(
                f"expected start_epoch of at least 1, got {start_epoch}: before the end of the "
                "first epoch there are no statistics"
            )
        self.layer = layer
        self.options: dict[str, Any] = {
            "kernel": kernel,
            "kernel_size": kernel_size,
            "kernel_sigma": kernel_sigma,
            "momentum": momentum,
            "clip": clip,
        }
        try:  # wrong settings are reported now and not when the training starts
            FeatureDistributionSmoothing([0.0, 1.0], 1, **self.options)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.start_epoch = start_epoch
        self.subset = subset
        self.edges = edges
        self.smoothing: FeatureDistributionSmoothing | None = None
        self._loaded: dict[str, Tensor] = {}
        self._hook: Any = None
        self._loader: Iterable[Any] | None = None
        self._labels: Labels | None = None  # of the batch that is being calibrated
        self._collecting: tuple[FeatureStatistics, Labels] | None = None

    # ---- before and after training ----

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the layer and the subset's images."""
        if stage != "fit":
            return
        layer = find_layer(_task(pl_module).model, self.layer)
        self._channels = input_channels(layer)
        self._hook = layer.register_forward_pre_hook(self._at_layer)
        if self.subset is not None:
            self._loader = subset_loader(cast(Any, trainer).datamodule, self.subset)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make room for the statistics, and take over those of a checkpoint."""
        if self._loaded:
            edges: Sequence[float] = self._loaded["edges"].tolist()
        elif self.edges is not None:
            edges = self.edges
        elif (histogram := _task(pl_module).histogram) is not None:
            edges = histogram.edges.tolist()
        else:
            raise ConfigError(
                "FeatureSmoothing needs label bins: train with a data module that counts its "
                "labels, or give edges"
            )
        if len(edges) < 2 or any(high <= low for low, high in pairwise(edges)):
            raise ConfigError(f"expected increasing edges of label bins, got {list(edges)}")
        smoothing = FeatureDistributionSmoothing(edges, self._channels, **self.options)
        if self._loaded:
            smoothing.load_state_dict(self._loaded)
            self._loaded = {}
        self.smoothing = smoothing.to(pl_module.device)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the network as it was."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = self._labels = self._collecting = None

    # ---- training ----

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the labels by which the layer's input is going to be calibrated."""
        if "image" not in batch:
            raise ConfigError(
                "FeatureSmoothing goes over images after every epoch, and the batches of this "
                f"training have {', '.join(batch)}: give data with images, or leave the callback "
                "out"
            )
        if trainer.current_epoch >= self.start_epoch:
            self._labels = _task(pl_module).target(batch)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Forget the labels: validation is not calibrated."""
        self._labels = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the statistics from the features of the training images."""
        task, smoothing = _task(pl_module), self._state
        statistics = smoothing.statistics()
        with (
            torch.no_grad(),
            unchanged_buffers(task.model),
            trainer.precision_plugin.forward_context(),
        ):
            for batch in self._batches(trainer):
                batch = trainer.precision_plugin.convert_input(batch)
                batch = trainer.strategy.batch_to_device(batch, task.device)
                self._collecting = statistics, task.target(batch)
                task.model(batch["image"])
        self._collecting = None
        joined = trainer.strategy.reduce(statistics.sums(), reduce_op="sum")
        statistics.set_sums(cast(Tensor, joined))
        smoothing.update(statistics.moments())

    def _batches(self, trainer: pl.Trainer) -> Iterator[Any]:
        """Yield the batches of the subset, or those that an epoch trains on."""
        if self._loader is None:
            batches = trainer.num_training_batches
            limit = None if batches == float("inf") else int(batches)
            return islice(cast(Any, trainer.train_dataloader), limit)
        fast = int(trainer.fast_dev_run)  # type: ignore[attr-defined]
        return islice(self._loader, fast or None)

    # ---- the layer ----

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _at_layer(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Collect or calibrate the layer's input."""
        features: Tensor = inputs[0]
        if self._collecting is not None:
            statistics, labels = self._collecting
            statistics.update(features, self._bins(labels, features))
        elif self._labels is not None:
            calibrated = self._state(features, self._bins(self._labels, features))
            return calibrated, *inputs[1:]
        return None

    def _bins(self, labels: Labels, features: Tensor) -> Tensor:
        return feature_bins(*labels, self._state.edges, tuple(features.shape[2:]))

    @property
    def _state(self) -> FeatureDistributionSmoothing:
        if self.smoothing is None:
            raise ConfigError("FeatureSmoothing has no statistics: the training has not started")
        return self.smoothing

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Return the running statistics."""
        return {} if self.smoothing is None else dict(self.smoothing.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the statistics of a checkpoint until the training continues."""
        self._loaded = state_dict


@contextmanager
def unchanged_buffers(network: nn.Module) -> Iterator[None]:
    """Put all buffers back as they were: running means of batch normalisation, above all.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> with unchanged_buffers(norm):
        ...     _ = norm(torch.tensor([[1.0], [5.0]]))
        >>> norm.running_mean.item(), norm.num_batches_tracked.item()
        (0.0, 0)
    """
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _task(pl_module: pl.LightningModule) -> Task:
    if not isinstance(pl_module, Task):
        raise ConfigError(
            f"FeatureSmoothing works with a Task, which says what the labels of a batch "
            f"are; got a {type(pl_module).__name__}"
        )
    return pl_module
