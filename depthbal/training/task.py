"""The depth task: what one training and one validation step do with images and depth."""

from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW

from depthbal.errors import ConfigError
from depthbal.losses import RegressionLoss
from depthbal.predictor import Predictor, Readout
from depthbal.training.compiled_network import CompiledNetwork
from depthbal.training.masked_loss import masked_loss, match_size
from depthbal.training.regression_task import Batch, RegressionTask
from depthbal.training.validation import SELECTION_METRIC, ValidationMetrics


class DepthTask(RegressionTask):
    """Train a depth network with a masked regression loss.

    The mask is depth >= min_depth, for every loss alike. Before the optimizer exists the training
    split's histogram gives the loss its prior and the network its initial bias, unless a
    checkpoint is going to bring both.

    Args:
        model: Network from images (B, 3, H, W) to metres (B, 1, h, w). Its weights are kept in the
            memory layout channels_last; --trainer.precision is bf16-mixed unless given, where the
            device multiplies bfloat16, else 32-true.
        criterion: One of our losses by name (GAILoss, BMCLoss, BNILoss, MSELoss), or any module
            from predictions and targets to a scalar by its full class path.
        optimizer: Optimizer with its arguments, without parameters. On GPUs Adam and AdamW are
            fused unless their arguments say how to update (fused, foreach, capturable).
        lr_scheduler: Schedule with its arguments, or null for a constant learning rate.
        noise_lr: Learning rate of a learned noise scale, kept constant and without weight decay.
        min_depth: Metres below which depth does not count.
        max_depth: Metres at which the depths end, the validation bins with them. Both limits must
            be the data's and, where the criterion has one, those of its label_range.
        readout: How validation, evaluation and prediction read the network: "mean" (posterior mean
            on the label range), "clamped" or "raw".
        resize: "target" interpolates predictions of another size than the targets; null makes them
            an error.
        compile: Train and validate with torch.compile of the network, which takes minutes at the
            first steps: an eighth faster on an H100, no gain measured on CPUs. Where it fails, a
            log line says why and the training goes on without. Checkpoints are the same.

    Raises:
        ConfigError: Settings that contradict each other or the data.

    Example:
        >>> import torch
        >>> from depthbal.losses import MSELoss
        >>> task = DepthTask(nn.Conv2d(3, 1, 1), MSELoss())
        >>> batch = {"image": torch.zeros(2, 3, 4, 4), "depth": torch.ones(2, 1, 4, 4)}
        >>> task.compute_loss(batch).shape
        torch.Size([])
    """

    selection_metric = SELECTION_METRIC
    selection_title = "validation RMSE over bins"
    validation: ValidationMetrics
    _compiled: CompiledNetwork | None

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        noise_lr: float = 1e-2,
        min_depth: float = 0.7,
        max_depth: float = 10.0,
        readout: Readout = "mean",
        resize: Literal["target"] | None = None,
        compile: bool = False,
    ) -> None:
        # convolutions run up to six times as fast in this layout on a CPU, and faster on a GPU
        model = model.to(memory_format=torch.channels_last)
        super().__init__(model, criterion, optimizer, lr_scheduler, noise_lr, readout)
        # outside the tree of modules: parameters stay the model's own, checkpoints know no compiler
        object.__setattr__(self, "_compiled", CompiledNetwork(self.model) if compile else None)
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.resize = resize
        self.validation = ValidationMetrics(max_depth)

    def check_data(self, data: Any) -> None:
        """Check that data, task and loss agree on which depths there are.

        A loss's label range that ends at 10 m would silently cap the predictions for data that
        reach to 80 m.

        Args:
            data: A data module; limits that it does not have are not compared.

        Raises:
            ConfigError: They contradict; names the settings and what to give.
        """
        low = float(getattr(data, "min_depth", self.min_depth))
        high = float(getattr(data, "max_depth", self.max_depth))
        label_range = getattr(self.criterion, "label_range", None) or (low, high)
        given = {
            f"--data.min_depth {low:g}, --data.max_depth {high:g}": (low, high),
            f"--model.min_depth {self.min_depth:g}, --model.max_depth {self.max_depth:g}": (
                self.min_depth,
                self.max_depth,
            ),
            f"--model.criterion.label_range [{label_range[0]:g}, {label_range[1]:g}]": label_range,
        }
        if any(not np.allclose(ends, (low, high)) for ends in given.values()):
            raise ConfigError(
                f"these depth limits contradict each other: {'; '.join(given)}; give all of them "
                f"the limits of the data, such as --model.min_depth {low:g} --model.max_depth "
                f"{high:g} --model.criterion.label_range '[{low:g}, {high:g}]'"
            )

    def label_range(self) -> tuple[float, float]:
        """Return the depths in metres between which the labels lie."""
        own = getattr(self.criterion, "label_range", None)
        return own or (self.min_depth, self.max_depth)

    @property
    def network(self) -> nn.Module:
        """The network as training and validation call it: `model`, or that compiled."""
        return self.model if self._compiled is None else self._compiled

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return depth (B, 1, h, w) in metres and the mask of the pixels that count."""
        target = batch["depth"]
        return target, target >= self.min_depth

    def compute_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch of image (B, 3, H, W) and depth (B, 1, h, w) in metres."""
        target, mask = self.targets(batch)
        preds = match_size(self.network(batch["image"]), target, self.resize)
        return masked_loss(self.criterion, preds, target, mask)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Compare the read-out at the targets' own size."""
        target, mask = self.targets(batch)
        predictor = Predictor(self.network, self.criterion, self.input_spec, self.readout)
        size = (target.shape[-2], target.shape[-1])
        maps = predictor.predict_maps(batch["image"], size, (self.readout,))
        self.validation.update(maps[self.readout], target, mask)
