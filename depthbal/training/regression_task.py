"""The engine of every regression: optimizer, prior, noise, logging and checkpoints."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, cast

import pytorch_lightning as pl
from pytorch_lightning import Callback
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import AdamW

from depthbal.errors import ConfigError
from depthbal.evaluation.label import DEPTH
from depthbal.losses import NonFiniteError, RegressionLoss
from depthbal.losses.noise_guard import guard_noise
from depthbal.predictor import Readout
from depthbal.priors import Histogram
from depthbal.training.checkpoint_entry import DEFAULT_INPUT, describe_checkpoint, require_same
from depthbal.training.finite_loss import TrainingError, diverged_message
from depthbal.training.noise_values import depth_noise, noise_values
from depthbal.training.optimisation import hold_noise_lr, parameter_groups, suit_device

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]


class Validation(Protocol):
    """What a task measures its validation split with; an ``nn.Module``."""

    def compute(self) -> dict[str, float]:
        """Return the metrics of all batches by the names they are logged under."""
        ...

    def reset(self) -> None:
        """Forget the batches."""
        ...


class RegressionTask(pl.LightningModule):
    """Train a network with a regression loss; subclasses say what a batch is.

    Before the optimizer exists the training split's histogram gives the loss its prior and the
    network its initial bias, unless a checkpoint is going to bring both.

    A subclass defines `compute_loss`, `targets`, `label_range`, `validation_step`, the attribute
    ``validation`` (see `Validation`) and ``selection_metric``, and may refine `check_data` and
    `initialise`.

    Args:
        model: Network.
        criterion: Loss.
        optimizer: Optimizer with its arguments, without parameters.
        lr_scheduler: Schedule with its arguments, or null for a constant learning rate.
        noise_lr: Learning rate of a learned noise scale, kept constant and without weight decay.
        readout: How validation, evaluation and prediction read the network.
    """

    selection_metric: ClassVar[str]
    """The validation metric that the best epoch has lowest."""
    selection_title: ClassVar[str]
    """The same for people, in the line of an epoch."""
    validation: Validation

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        noise_lr: float = 1e-2,
        readout: Readout = "mean",
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.noise_lr = noise_lr
        self.readout: Readout = readout
        self.starts_from_checkpoint = False  # set on resume: prior and weights come from there
        self.histogram: Histogram | None = None
        self.label = DEPTH  # of pictures; a subclass sets another
        self.input_spec: dict[str, Any] = DEFAULT_INPUT
        self._noise_warning: str | None = None

    # ---- what a subclass says ----

    def compute_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, one scalar."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the labels of a batch and where they count; None where all do."""
        raise NotImplementedError

    def label_range(self) -> tuple[float, float]:
        """Return the values between which the labels lie."""
        raise NotImplementedError

    def check_data(self, data: Any) -> None:
        """Check that data, task and loss agree, before anything is counted or trained.

        Args:
            data: The data module.

        Raises:
            ConfigError: They contradict; names the settings and what to give.
        """

    def check_callbacks(self, callbacks: Sequence[Callback]) -> None:
        """Check that the trainer's callbacks can do their work, before anything is computed.

        Args:
            callbacks: The trainer's.

        Raises:
            ConfigError: One cannot; names it and what to give.
        """

    def initialise(self, histogram: Histogram) -> None:
        """Set the loss's prior, if it lacks one, and the network's bias to the mean label."""
        self.histogram = histogram
        if isinstance(self.criterion, RegressionLoss) and self.criterion.needs_prior:
            self.criterion.set_prior(histogram)
        if hasattr(self.model, "initialise_bias"):
            cast(Any, self.model).initialise_bias(histogram.mean)

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

    def guard_noise(self) -> None:
        """Keep a noise scale that follows the prediction where every label can be predicted.

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, and log it for the epoch's mean."""
        try:
            loss = self.compute_loss(batch)
        except NonFiniteError as error:
            raise TrainingError(diverged_message(self.trainer, str(error))) from error
        size = len(next(iter(batch.values())))
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

    def on_validation_epoch_end(self) -> None:
        """Log the validation split's metrics."""
        for name, value in self.validation.compute().items():  # reduced over processes already
            self.log(name, value, prog_bar=name == self.selection_metric, sync_dist=True)
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
