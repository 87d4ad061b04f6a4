"""The task of every regression: optimizer, prior, noise, scores, logging and checkpoints."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import AdamW

import depthbal
from depthbal.checkpoint import (
    FORMAT,
    describe_module,
    find_checkpoint,
    identity,
    network_state,
    part_of_state,
    read_checkpoint,
)
from depthbal.data.label_data import LabelData
from depthbal.errors import CheckpointError, ConfigError
from depthbal.evaluation import GROUPS, LABEL_TERMS, Label, Scores
from depthbal.evaluation.summary import SAME_PASS
from depthbal.evaluation.sums import check_preds
from depthbal.losses import LogLabelLoss, NonFiniteError, RegressionLoss
from depthbal.losses.noise import following_noise, guard_noise
from depthbal.losses.posthoc import BalanceMap
from depthbal.models.heads import require_matching_head, take_range
from depthbal.models.weights import load_exactly
from depthbal.predictor import Predictor, Readout, readouts_of
from depthbal.priors import Histogram
from depthbal.training.optimisation import (
    hold_noise_lr,
    noise_values,
    parameter_groups,
    scale_rates,
    suit_device,
)
from depthbal.training.resuming import TrainingError, diverged_message
from depthbal.training.tuning import (
    add_lora,
    find_part,
    first_process_first,
    rate_factors,
    recompute_activations,
    use_features,
)

log = logging.getLogger(__name__)

Batch = dict[str, Any]


class Task(pl.LightningModule):
    """Train and score a network with a regression loss; subclasses say what a batch is.

    Before the optimizer exists the training labels give the loss its prior and the network its
    initial bias, unless a checkpoint is going to bring both. Validation and test are the same pass
    with a `Scores` each. As it stands the task is for one scalar label per image: batches of
    ``image`` (B, 3, H, W) and ``label`` (B,), NaN where there is none. A subclass for something
    else writes `predict` and `target`, seldom `fit_prior`, `training_loss` or `score`.

    Args:
        model: Network.
        criterion: One of our losses by name, or any module from predictions and targets to a
            scalar by its full class path.
        optimizer: Optimizer with its arguments, without parameters.
        lr_scheduler: Schedule with its arguments, or null for a constant learning rate.
        label_transform: "log" takes the logarithms of predictions and labels for the loss, whose
            sigma and other numbers are then those of logarithms (`LogLabelLoss`); predictions stay
            in label units, best by a network with ``head: {kind: log}``.
        noise_lr: Learning rate of a learned noise scale (of its logarithm), kept constant and
            without weight decay.
        readout: How validation, evaluation and prediction read the network: "mean" (posterior mean
            on the label range), "clamped", "raw", or with BinsLoss "median".
        weights_from: Run folder or checkpoint whose network this training starts from.
        weights_checkpoint: Which checkpoint of a run folder: the last, or the best on validation.
        reset: Names of parts of the network that do not take its weights, such as [head].
        freeze: Names of parts that are not trained and stay in evaluation mode, normalisation
            included, such as [backbone]; "encoder" is what the network names so.
        cache_features: Compute what a frozen ``model.backbone`` gives for the images as they are,
            without augmentation, once, and train ``model.head`` on it.
        encoder_lr: Learning rate of the encoder over that of the rest.
        layer_decay: Factor of the learning rate from each layer of the encoder to the one before
            it, beginning with the last.
        lora: Train LoRA in place of the encoder's weights (peft): its rank, or some of r,
            lora_alpha (twice the rank unless given), lora_dropout and target_modules (the names
            that linear layers end in; by default the attention's query and value). Whatever opens
            the checkpoint adds it to the weights.
        gradient_checkpointing: Compute activations again in the backward pass, which takes less
            memory and more time.
        censor: Whether labels that are only known to lie beyond the range, where the data have
            them, are trained on as such; else they are left out, of the prior too.
        ema: Decay of an exponential moving average of the weights, such as 0.999, less in the first
            steps: min(ema, (1 + n) / (10 + n)) at step n. Validation, checkpoints and all that is
            made of them have the average.

    Raises:
        ConfigError: Settings that contradict each other.

    Example:
        >>> from depthbal.losses import MSELoss
        >>> task = Task(nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0)), MSELoss())
        >>> batch = {"image": torch.zeros(2, 3, 2, 2), "label": torch.ones(2)}
        >>> task.training_loss(task.predict(batch), batch).shape
        torch.Size([])
    """

    selection_metric: ClassVar[str] = "val/rmse_bins"
    """The validation metric that the best epoch has lowest."""
    selection_title: ClassVar[str] = "validation RMSE over bins"
    """The same for people, in the line of an epoch."""
    main_metric: ClassVar[str] = "rmse"
    """What reports open with."""
    logged_metrics: ClassVar[tuple[str, ...]] = ("rmse", "mae")
    """What else is logged of the validation split."""
    balanced: ClassVar[tuple[str, ...]] = ()
    """Metrics that also get their mean over the bins, such as mae: bmae."""
    study_metrics: ClassVar[tuple[str, ...]] = tuple(
        f"per_bin_mean.{group}.rmse" for group in GROUPS
    )
    """What a study's table shows, as paths in metrics.json."""
    protocols: ClassVar[tuple[str, ...]] = ("default",)
    """Ways in which a test split can be scored; the first one unless it is said otherwise."""
    test_options: dict[str, Any] | None = None
    """How a test scores maps: crop, cap, alignments, edges; None where there are no maps."""

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_transform: Literal["log"] | None = None,
        noise_lr: float = 1e-2,
        readout: Readout = "mean",
        weights_from: str | None = None,
        weights_checkpoint: Literal["last", "best"] = "last",
        reset: Sequence[str] = (),
        freeze: Sequence[str] | str = (),
        cache_features: bool = False,
        encoder_lr: float = 1.0,
        layer_decay: float = 1.0,
        lora: int | dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        ema: float | None = None,
        censor: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        if label_transform == "log":
            try:
                criterion = LogLabelLoss(cast(RegressionLoss, criterion))
            except ValueError as error:
                raise ConfigError(f"--model.label_transform log: {error}") from error
        self.criterion = criterion
        self.make_optimizer, self.make_lr_scheduler = optimizer, lr_scheduler
        self.noise_lr = noise_lr
        self.readout: Readout = readout
        self.weights_from, self.weights_checkpoint = weights_from, weights_checkpoint
        self.encoder_lr, self.layer_decay, self.ema = encoder_lr, layer_decay, ema
        self.censor = censor
        self.reset, self.cache_features = [find_part(model, name) for name in reset], cache_features
        names = [freeze] if isinstance(freeze, str) else freeze
        self.freeze_parts = [find_part(model, name) for name in names]
        for name in self.freeze_parts:
            model.get_submodule(name).requires_grad_(False).eval()
        if cache_features and ("backbone" not in self.freeze_parts or lora is not None):
            raise ConfigError("cache_features needs a frozen backbone: freeze: [backbone], no lora")
        if ema is not None and not 0 < ema < 1:
            raise ConfigError(f"expected ema between 0 and 1, such as 0.999, got {ema}")
        rate_factors(model, encoder_lr, layer_decay)  # an encoder that it cannot be said of
        self.lora = None if lora is None else add_lora(model, lora)
        if gradient_checkpointing:
            recompute_activations(model)
        require_matching_head(model, criterion)
        self.settings: Mapping[str, Any] = {}  # that the network and the loss were made with
        self.starts_from_checkpoint = False  # set on resume: prior and weights come from there
        self.histogram: Histogram | None = None  # of the training labels
        self.label = Label("label", "")  # the data's
        self.input_spec: dict[str, Any] = {"short_side": None, "mean": [0.0] * 3, "std": [1.0] * 3}
        self.validation: Scores | None = None
        self.test_scores: Scores | None = None
        self.test_beside: Sequence[Scores] = ()  # of further protocols, in the same pass
        self.posthoc: BalanceMap | None = None
        self.protocol: Sequence[str] = self.protocols[:1]
        self.test_seed = 0  # of what a protocol draws
        self.test_facts: dict[str, Any] = {}  # what only the caller knows, for the protocol
        self._noise_warning: str | None = None

    # ---- what a subclass may say ----

    def predict(self, batch: Batch) -> Tensor:
        """Return the network's raw output for a batch."""
        if "features" in batch:
            return self.model.head(batch["features"])  # type: ignore[no-any-return,operator]
        return self.model(batch["image"])  # type: ignore[no-any-return]

    def target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the labels of a batch, and which of them count; None where all do."""
        return batch["label"], batch["label"].isfinite()

    def beyond(self, batch: Batch) -> Tensor | None:
        """Return which labels of a batch are trained on as beyond the range; None for none.

        Where the prior holds none, a crop may have cut them all off, there are none to train on.
        """
        held = self.histogram is None or self.histogram.beyond > 0
        return batch.get("beyond") if self.censor and held else None

    def check_data(self, data: LabelData) -> None:
        """Raise a ConfigError for data that the network cannot take, before anything is counted."""

    def fit_prior(self, data: LabelData) -> None:
        """Give the loss its prior and the network its initial bias from the training labels."""
        # one process counts, the others would stream the same files
        mine = data.train_histogram().to_dict() if self.trainer.is_global_zero else {}
        self.histogram = Histogram.from_dict(self.trainer.strategy.broadcast(mine))
        if not self.censor:
            self.histogram.beyond = 0.0
        # that of the training labels; vectors have none
        if self.label.range is None and not getattr(self.criterion, "event_dim", 0):
            self.take_range((float(self.histogram.edges[0]), float(self.histogram.edges[-1])))
        if isinstance(self.criterion, RegressionLoss) and self.criterion.needs_prior:
            self.criterion.set_prior(self.histogram)
        self.take_beyond(self.histogram)
        if hasattr(self.model, "initialise_bias") and (self.weights_from is None or self.reset):
            start = getattr(self.criterion, "initial_logits", self.histogram.mean)
            cast(Any, self.model).initialise_bias(start)

    def take_beyond(self, histogram: Histogram) -> None:
        """Tell the loss how common labels beyond the range are; a ConfigError if it takes none."""
        if not (self.censor and histogram.beyond and isinstance(self.criterion, RegressionLoss)):
            return
        label = torch.zeros(1)
        self.criterion.set_beyond(histogram)
        try:
            self.criterion.end_of_range(label == 0, label)
        except ValueError as error:
            raise ConfigError(
                f"{histogram.beyond:,.0f} training labels are only known to lie beyond the range: "
                f"{error}; or leave them out: --model.censor false"
            ) from error

    def training_loss(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a batch, one scalar."""
        target, mask = self.target(batch)
        return masked_loss(self.criterion, raw, target, mask, self.beyond(batch))

    def make_scores(self, data: LabelData, split: Literal["val", "test"]) -> Scores:
        """Return the empty scores of a split: every read-out for the test, one for validation."""
        facts = self.facts(data) if split == "test" else {}
        if self.balanced:
            pairs = ", ".join(f"b{name} of {name}" for name in self.balanced)
            facts["balanced"] = f"means over the bins with test samples: {pairs}"
        readouts = readouts_of(self.criterion) if split == "test" else (self.readout,)
        return Scores(
            data.bins(),
            readouts,
            self.readout,
            terms=LABEL_TERMS,
            label=data.label,
            main_metric=self.main_metric,
            balanced=self.balanced,
            protocol=facts,
        )

    def score(self, batch: Batch, scores: Scores) -> None:
        """Predict a batch, read it out and add it to scores."""
        raw = self.predictor().decode(self.predict(batch))
        target, mask = self.target(batch)
        scores.update(
            self.read_out(raw, target, batch, scores.readouts),
            target,
            mask,
            batch.get("name"),
            batch.get("group"),
            self.predictor().interval(raw) if len(scores.readouts) > 1 else None,
            indices=batch.get("index"),
        )

    def read_out(
        self, raw: Tensor, target: Tensor, batch: Batch, readouts: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return predictions in every read-out."""
        if self.posthoc is not None:  # which needs all of them, not only those that count
            check_preds(raw, target, torch.ones_like(target, dtype=torch.bool), batch.get("name"))
        return self.predictor().read_out(raw, cast(Any, readouts))

    def test_loader(self, data: LabelData) -> Any:
        """Return the batches that `protocol` scores."""
        return data.test_dataloader()

    def save_examples(self, data: LabelData, folder: Path) -> None:
        """Write samples that show what a test found beside its scores; by default none."""

    def validation_metrics(self, result: dict[str, Any]) -> dict[str, float | None]:
        """Return what is logged of the validation split, of what `Scores.compute` returns."""
        overall = result["overall"]
        names = {f"val/{k}": overall[k] for k in self.logged_metrics if k in overall}
        return {self.selection_metric: result["per_bin_mean"]["overall"][self.main_metric], **names}

    def result(self, scores: Scores) -> dict[str, Any]:
        """Return what metrics.json holds besides `Scores.result`."""
        return {}

    def label_range(self) -> tuple[float, float]:
        """Return the ends between which labels lie: the loss's, else the data's."""
        ends = getattr(self.criterion, "label_range", None) or self.label.range
        if ends is None:
            raise ConfigError("expected a loss with a label_range where there are no data")
        return ends  # type: ignore[no-any-return]

    def take_range(self, label_range: tuple[float, float]) -> None:
        """Give loss and network the ends between which labels lie; nobody is told them twice."""
        given = getattr(self.criterion, "label_range", None) or label_range
        if not np.allclose(given, label_range):
            raise ConfigError(
                f"expected one label range, that of the data, got {label_range[0]:g} to "
                f"{label_range[1]:g} and for the loss {given[0]:g} to {given[1]:g}: leave out the "
                "label_range of the loss, and keep the data's when resuming"
            )
        self.label = self.label._replace(range=label_range)
        try:
            take_range(label_range, self.model, self.criterion)
        except ValueError as error:  # logarithms of labels that begin at 0
            raise ConfigError(str(error)) from error

    # ---- before training and test ----

    def setup(self, stage: str) -> None:
        """Take from the data what the training, or the test, needs."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, LabelData):
            return
        self.label = data.label
        if stage == "fit" and data.label.range is not None:
            self.take_range(data.label.range)
        if self.histogram is not None:
            data.histogram = self.histogram  # shots are those of the training
        if stage == "fit":
            self.input_spec = data.input_spec()
            self.prepare(data)
            if not self.starts_from_checkpoint:
                self.fit_prior(data)
            if data.val_set is not None:
                self.validation = self.make_scores(data, "val")
            for callback in cast(Any, self.trainer).callbacks:
                if isinstance(callback, WeightAveraging):  # which has copied a loss without prior
                    callback.setup(self.trainer, self, stage)
        elif stage == "test":
            self.test_scores = self.make_scores(data, "test")

    def prepare(self, data: LabelData) -> None:
        """Take the weights of another run, and put features in the place of images."""
        if self.weights_from is not None and not self.starts_from_checkpoint:
            self.take_weights(self.weights_from)
        if self.cache_features:
            backbone = self.model.get_submodule("backbone")
            with first_process_first(self.trainer):
                use_features(data, backbone, self.trainer.strategy.root_device)

    def take_weights(self, path: str) -> None:
        """Load the network of another run, but for the parts that are `reset`."""
        file = find_checkpoint(path, self.weights_checkpoint)
        content = read_checkpoint(file)
        theirs = identity(content["depthbal"]["model"])
        mine = identity(describe_module(self.model, self.settings.get("model")))
        if theirs != mine:
            raise CheckpointError(
                f"{file} holds {theirs}, this training has {mine}; give it the same network, or "
                "another --model.weights_from"
            )
        own, fresh = self.model.state_dict(), tuple(f"{part}." for part in self.reset)
        moved = {name.replace(".base_layer.", "."): name for name in own}  # by LoRA
        state = {moved.get(name, name): value for name, value in network_state(content).items()}
        state |= {k: v for k, v in own.items() if k.startswith(fresh) or ".lora_" in k}
        load_exactly(self.model, state, str(file))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for name in self.freeze_parts:
            self.model.get_submodule(name).eval()
        return self

    def predictor(self) -> Predictor:
        """Return the network with its read-outs, for batches of this task."""
        predictor = Predictor(
            self.model, self.criterion, self.input_spec, self.readout, posthoc=self.posthoc
        )
        if self.posthoc is not None:
            predictor.label_range = self.posthoc.label_range
        return predictor

    def facts(self, data: LabelData) -> dict[str, Any]:
        """Return the protocol's entries about weights, noise and data."""
        facts: Any = dict if self.posthoc is not None else getattr(self.criterion, "facts", dict)
        return {**self.test_facts, **facts(), "data": data.describe_test()}

    # ---- optimisation ----

    def configure_optimizers(self) -> Any:
        """Return the optimizer over its parameter groups, and the schedule of all but the noise."""
        noise: list[nn.Parameter] = getattr(self.criterion, "noise_parameters", list)()
        factors = rate_factors(self.model, self.encoder_lr, self.layer_decay)
        named = [(name.removeprefix("model."), p) for name, p in self.named_parameters()]
        groups = parameter_groups(named, noise, self.noise_lr, factors)
        trainer = self._trainer  # None where the task is used without one
        # a fused optimizer undoes the scaling of float16 gradients itself, so none can be clipped
        scaled = trainer is not None and trainer.precision == "16-mixed"
        may_fuse = not (scaled and cast(pl.Trainer, trainer).gradient_clip_val)
        optimizer = self.make_optimizer(groups)
        scale_rates(optimizer)
        optimizer = suit_device(optimizer, may_fuse)
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

    def guard_noise(self) -> None:
        """Keep a noise scale that follows the prediction where every label can be predicted.

        It moves a little in every step, so it is looked at before every validation and checkpoint.
        """
        if following_noise(self.criterion) is None:
            return
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
        noise = following_noise(self.criterion)
        if noise is not None:
            values = noise_values(noise, self.label_range())
            self.log_dict({f"train/noise_{key}": value for key, value in values.items()})

    # ---- steps ----

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, and log it for the epoch's mean."""
        try:
            loss = self.training_loss(self.predict(batch), batch)
        except NonFiniteError as error:
            raise TrainingError(diverged_message(self.trainer, str(error))) from error
        size = len(next(iter(batch.values())))
        # our losses are scaled so that their mean over processes is that of the joined batch
        shown: Any = {"prog_bar": True, "on_step": False, "on_epoch": True, "sync_dist": True}
        self.log("train/loss_epoch", loss, batch_size=size, **shown)
        sigma = getattr(self.criterion, "noise_sigma", None)
        if sigma is not None:
            self.log("train/noise_sigma", sigma, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the loss of every `log_every_n_steps`-th step.

        Reading a number stalls a GPU, and Lightning reads what the progress bar shows at every
        step. So other steps log nothing, and what is logged is a number on the CPU.
        """
        every, step = cast(Any, self.trainer).log_every_n_steps, self.trainer.global_step
        if not (self.trainer.should_stop or (every > 0 and step % every == 0)):
            return
        loss = outputs["loss"] * self.trainer.accumulate_grad_batches  # Lightning divided it
        loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        self.log("train/loss_step", loss.cpu(), prog_bar=True, on_step=True, on_epoch=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        if self.validation is not None:
            self.score(batch, self.validation)

    def on_validation_epoch_end(self) -> None:
        """Log the validation split's metrics, reduced over processes already."""
        if self.validation is None:
            return
        for name, value in self.validation_metrics(self.validation.compute()).items():
            if value is not None:
                self.log(name, value, prog_bar=name == self.selection_metric, sync_dist=True)
        self.validation.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch in full precision."""
        with torch.autocast(self.device.type, enabled=False):
            self.score(batch, cast(Scores, self.test_scores))

    def on_test_epoch_end(self) -> None:
        """Join the scores of all processes."""
        scores = cast(Scores, self.test_scores)
        if rows := [row for other in self.test_beside for row in other.compute()["protocols"]]:
            scores.given[SAME_PASS] = rows
        scores.compute()

    # ---- checkpoints ----

    def describe(self) -> dict[str, Any]:
        """Return the entry ``checkpoint["depthbal"]``, of plain types only."""
        ends = getattr(self.criterion, "label_range", None) or self.label.range
        return {
            "format": FORMAT,
            "version": depthbal.__version__,
            "model": describe_module(self.model, self.settings.get("model")),
            "lora": self.lora,
            "criterion": describe_module(self.criterion, self.settings.get("criterion")),
            "input": self.input_spec,
            "readout": self.readout,
            "label": [self.label.name, self.label.unit],
            "label_range": None if ends is None else [float(end) for end in ends],
            "histogram": None if self.histogram is None else self.histogram.to_dict(),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to open the checkpoint without Lightning and config."""
        checkpoint["depthbal"] = self.describe()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is this network's and this loss's; take its histogram."""
        found = checkpoint["depthbal"]
        if found["label_range"] is not None:
            self.take_range(tuple(found["label_range"]))
        own = self.describe()
        theirs, mine = (
            f"{identity(one['model'])} with {one['criterion']['class_path'].rpartition('.')[2]}"
            for one in (found, own)
        )
        if theirs != mine:
            raise CheckpointError(
                f"the checkpoint belongs to another training: it is of {theirs}, this is of {mine}"
            )
        if found["histogram"] is not None:
            self.histogram = Histogram.from_dict(found["histogram"])
        if self.cache_features:  # they are computed before the engine loads the weights
            for name in self.freeze_parts:
                own_part = part_of_state(checkpoint["state_dict"], f"model.{name}.")
                load_exactly(self.model.get_submodule(name), own_part, f"{name} of the checkpoint")


def masked_loss(
    criterion: nn.Module,
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None,
    beyond: Tensor | None = None,
) -> Tensor:
    """Return the loss over the labels that count; torch's own losses get them as two vectors."""
    known = inspect.signature(criterion.forward).parameters
    more = {} if beyond is None or "beyond" not in known else {"beyond": beyond}
    if isinstance(criterion, RegressionLoss) or "mask" in known:
        return criterion(preds, target, mask, **more)  # type: ignore[no-any-return]
    if mask is None:
        return criterion(preds.float(), target)  # type: ignore[no-any-return]
    counted = preds[mask]
    if not len(counted):
        return preds.sum() * 0.0
    return criterion(counted.float(), target[mask])  # type: ignore[no-any-return]
