"""The Lightning task: what one training and one validation step do."""

import logging
from typing import Any, Literal, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import AdamW

from depthbal.errors import ConfigError
from depthbal.losses import NonFiniteError, RegressionLoss
from depthbal.losses.noise_guard import guard_noise
from depthbal.predictor import Predictor, Readout
from depthbal.priors import Histogram
from depthbal.training.checkpoint_entry import DEFAULT_INPUT, describe_checkpoint, require_same
from depthbal.training.compiled_network import CompiledNetwork
from depthbal.training.finite_loss import TrainingError, diverged_message
from depthbal.training.masked_loss import masked_loss, match_size
from depthbal.training.noise_values import depth_noise, noise_values
from depthbal.training.optimisation import hold_noise_lr, parameter_groups, suit_device
from depthbal.training.validation import SELECTION_METRIC, ValidationMetrics

log = logging.getLogger(__name__)


class DepthTask(pl.LightningModule):
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
        super().__init__()
        # convolutions run up to six times as fast in this layout on a CPU, and faster on a GPU
        self.model = model.to(memory_format=torch.channels_last)
        # outside the tree of modules: parameters stay the model's own, checkpoints know no compiler
        object.__setattr__(self, "_compiled", CompiledNetwork(self.model) if compile else None)
        self.criterion = criterion
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.noise_lr = noise_lr
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.readout: Readout = readout
        self.resize = resize
        self.starts_from_checkpoint = False  # set on resume: prior and weights come from there
        self.histogram: Histogram | None = None
        self.input_spec: dict[str, Any] = DEFAULT_INPUT
        self.validation = ValidationMetrics(max_depth)
        self._noise_warning: str | None = None

    # ---- before training ----

    def setup(self, stage: str) -> None:
        """Give the loss its prior and the network its initial bias from the training split."""
        data = getattr(self.trainer, "datamodule", None)
        if stage != "fit" or data is None:
            return
        self.check_data(data)
        if hasattr(data, "input_spec"):
            self.input_spec = data.input_spec()
        if hasattr(data, "train_histogram") and not self.starts_from_checkpoint:
            # one process counts, the others would stream the same files
            mine: dict[str, Any] = (
                data.train_histogram().to_dict() if self.trainer.is_global_zero else {}
            )
            self.initialise(Histogram.from_dict(self.trainer.strategy.broadcast(mine)))

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

    def initialise(self, histogram: Histogram) -> None:
        """Set the loss's prior, if it lacks one, and the network's bias to the mean depth."""
        self.histogram = histogram
        if isinstance(self.criterion, RegressionLoss) and self.criterion.needs_prior:
            self.criterion.set_prior(histogram)
        if hasattr(self.model, "initialise_bias"):
            cast(Any, self.model).initialise_bias(histogram.mean)

    def configure_optimizers(self) -> Any:
        """Return the optimizer over two parameter groups, and the schedule of the first."""
        groups = parameter_groups(self.parameters(), self._noise_parameters(), self.noise_lr)
        trainer = self._trainer  # None where the task is used without one
        # a fused optimizer undoes the scaling of float16 gradients itself, so none can be clipped
        clips_scaled = (
            trainer is not None and trainer.precision == "16-mixed" and trainer.gradient_clip_val
        )
        optimizer = suit_device(self.make_optimizer(groups), may_fuse=not clips_scaled)
        if self.make_lr_scheduler is None:
            return optimizer
        scheduler = self.make_lr_scheduler(optimizer)
        hold_noise_lr(optimizer, self.noise_lr)
        schedule = {"scheduler": scheduler, "interval": getattr(scheduler, "interval", "epoch")}
        if isinstance(scheduler, ReduceLROnPlateau):
            schedule["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_start(self) -> None:
        """Check the noise, and tell schedules that want it how many steps the training has."""
        self.guard_noise()
        for config in self.trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "set_total_steps"):
                steps = self.trainer.estimated_stepping_batches
                if steps == float("inf"):
                    raise ConfigError(
                        f"{type(config.scheduler).__name__} needs a training of known length; "
                        "set --trainer.max_epochs or --trainer.max_steps"
                    )
                config.scheduler.set_total_steps(int(steps))
                hold_noise_lr(config.scheduler.optimizer, self.noise_lr)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step the schedule, from which the noise scale is exempt."""
        super().lr_scheduler_step(scheduler, metric)
        hold_noise_lr(scheduler.optimizer, self.noise_lr)

    # ---- noise ----

    def label_range(self) -> tuple[float, float]:
        """Return the depths in metres between which the labels lie."""
        own = getattr(self.criterion, "label_range", None)
        return own or (self.min_depth, self.max_depth)

    def guard_noise(self) -> None:
        """Keep a noise scale that follows the prediction where every depth can be predicted.

        It moves a little in every step, so it is looked at before every validation and checkpoint.
        """
        message = guard_noise(self.criterion, self.histogram, self.label_range())
        if message is not None and message != self._noise_warning:
            log.warning("Noise: %s", message)
        self._noise_warning = message

    def on_validation_epoch_start(self) -> None:
        """Check the noise that validation reads the network with."""
        self.guard_noise()

    def on_train_epoch_end(self) -> None:
        """Check the noise that the checkpoint will hold, and log it where it is no single sigma."""
        self.guard_noise()
        noise = depth_noise(self.criterion)
        if noise is not None:
            values = noise_values(noise, self.label_range())
            self.log_dict({f"train/noise_{key}": value for key, value in values.items()})

    # ---- steps ----

    @property
    def network(self) -> nn.Module:
        """The network as training and validation call it: `model`, or that compiled."""
        return self.model if self._compiled is None else self._compiled

    def compute_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch of image (B, 3, H, W) and depth (B, 1, h, w) in metres."""
        target = batch["depth"]
        preds = match_size(self.network(batch["image"]), target, self.resize)
        return masked_loss(self.criterion, preds, target, target >= self.min_depth)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, and log it for the epoch's mean."""
        try:
            loss = self.compute_loss(batch)
        except NonFiniteError as error:
            raise TrainingError(diverged_message(self.trainer, str(error))) from error
        size = len(batch["image"])
        # our losses are scaled so that their mean over processes is that of the joined batch
        self.log(
            "train/loss_epoch",
            loss,
            prog_bar=True,
            on_step=False,
            on_epoch=True,
            batch_size=size,
            sync_dist=True,
        )
        sigma = getattr(self.criterion, "noise_sigma", None)
        if sigma is not None:
            self.log("train/noise_sigma", sigma, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the loss of every `log_every_n_steps`-th step.

        Reading a number stalls a GPU, and Lightning reads what the progress bar shows, and waits
        for the other processes, at every step. So other steps log nothing, and what is logged is a
        number on the CPU.
        """
        every, step = cast(Any, self.trainer).log_every_n_steps, self.trainer.global_step
        if not (self.trainer.should_stop or (every > 0 and step % every == 0)):
            return
        loss = outputs["loss"] * self.trainer.accumulate_grad_batches  # Lightning divided it
        loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        self.log("train/loss_step", loss.cpu(), prog_bar=True, on_step=True, on_epoch=False)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Compare the read-out at the targets' own size."""
        target = batch["depth"]
        predictor = Predictor(self.network, self.criterion, self.input_spec, self.readout)
        size = (target.shape[-2], target.shape[-1])
        maps = predictor.predict_maps(batch["image"], size, (self.readout,))
        self.validation.update(maps[self.readout], target, target >= self.min_depth)

    def on_validation_epoch_end(self) -> None:
        """Log the validation split's metrics."""
        for name, value in self.validation.compute().items():  # reduced over processes already
            self.log(name, value, prog_bar=name == SELECTION_METRIC, sync_dist=True)
        self.validation.reset()

    # ---- checkpoints ----

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is this model's and this loss's.

        Raises:
            CheckpointError: It is another's.
        """
        own = describe_checkpoint(self.model, self.criterion, self.input_spec, self.readout)
        require_same(checkpoint.get("depthbal"), own)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to open the checkpoint without Lightning and config."""
        checkpoint["depthbal"] = describe_checkpoint(
            self.model, self.criterion, self.input_spec, self.readout
        )

    def _noise_parameters(self) -> list[nn.Parameter]:
        if isinstance(self.criterion, RegressionLoss):
            return self.criterion.noise_parameters()
        return []
