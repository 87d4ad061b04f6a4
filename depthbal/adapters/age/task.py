"""The Lightning task of one label per image: whole networks, and heads on frozen backbones."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from pytorch_lightning import Callback
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam

from depthbal.adapters.age.data import LabelDataModule
from depthbal.adapters.age.features import use_features
from depthbal.adapters.age.retraining import BaseRun, load_backbone
from depthbal.errors import ConfigError
from depthbal.evaluation import BinnedMetrics, Label, LabelBins
from depthbal.losses import RegressionLoss
from depthbal.models import MODELS
from depthbal.predictor import Predictor, Readout
from depthbal.training.checkpoint_entry import describe_module
from depthbal.training.feature_smoothing import FeatureSmoothing
from depthbal.training.frozen_features import encode, first_process_first
from depthbal.training.regression_task import Batch, RegressionTask
from depthbal.training.runs import CheckpointName


class AgeTask(RegressionTask):
    """Train a backbone with a linear head on one label per image, or its head alone.

    With ``retrain`` the backbone is that of a finished run, frozen in evaluation mode, BatchNorm
    statistics included, and only a new head and the noise scale are trained (RRT). The best epoch
    is that of the lowest bMAE on the validation split; a training reports its last one, the
    published rows the best.

    Args:
        model: Network with `features` from images (B, 3, S, S) to (B, D), `backbone`, which
            computes them, and `head`, which turns them into (B, 1): AgeRegressor.
        criterion: One of our losses by name, or any module from predictions (B,) and targets (B,)
            to a scalar. One of ours without a label range gets that of the training labels.
        optimizer: Optimizer with its arguments, without parameters.
        lr_scheduler: Schedule with its arguments, or null for a constant learning rate.
        noise_lr: Learning rate of the logarithm of a learned noise scale (published: of the scale
            itself), kept constant and without weight decay.
        readout: How validation, evaluation and prediction read the network: "mean" (posterior mean
            on the label range), "clamped" or "raw", as published; metrics.json has all three.
        retrain: Train a new head on the frozen backbone of `base_run`.
        base_run: Run folder that the backbone comes from; on the command line ``--base RUN``.
        base_checkpoint: Which epoch of the base run: the last, or the best on its validation split.
        cache_features: Compute the features of the images as they are, without augmentation, once,
            and train on them. False runs the backbone on every augmented image in every epoch, as
            the published re-training does.

    Raises:
        ConfigError: Settings that contradict each other.

    Source: Ren et al., CVPR 2022 (supplement 2.2); RRT: Yang et al., ICML 2021.

    Example:
        >>> import torch
        >>> from depthbal.adapters.age.model import AgeRegressor
        >>> from depthbal.losses import MSELoss
        >>> task = AgeTask(AgeRegressor("test_resnet", library="timm"), MSELoss())
        >>> batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([20.0, 60.0])}
        >>> task.compute_loss(batch).shape
        torch.Size([])
    """

    selection_metric: ClassVar[str] = "val/bmae"
    selection_title: ClassVar[str] = "validation bMAE"
    validation: "AgeValidation"
    retrain: bool = False

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        optimizer: OptimizerCallable = Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        noise_lr: float = 1e-2,
        readout: Readout = "mean",
        retrain: bool = False,
        base_run: str | None = None,
        base_checkpoint: CheckpointName = "last",
        cache_features: bool = True,
    ) -> None:
        super().__init__(model, criterion, optimizer, lr_scheduler, noise_lr, readout)
        if retrain and base_run is None:
            raise ConfigError(
                "this config trains a new head on the backbone of a finished run: give it with "
                "--base RUN, such as the run of configs/age/vanilla.yaml"
            )
        if base_run is not None and not retrain:
            raise ConfigError(
                "--base RUN is for configs that train a head only, such as "
                "configs/age/rrt_gai.yaml; give one with --config, or leave --base out"
            )
        if lacking := [p for p in ("backbone", "features", "head") if not hasattr(model, p)]:
            raise ConfigError(
                f"{type(model).__name__} has no {', '.join(lacking)}; take AgeRegressor, or give "
                "the network these parts"
            )
        self.retrain = retrain
        self.base_run = base_run
        self.base_checkpoint: CheckpointName = base_checkpoint
        self.cache_features = cache_features
        self._base: BaseRun | None = None  # read once, when the data are checked
        self.labels: tuple[float, float] | None = None
        if retrain:
            self.network.backbone.requires_grad_(False).eval()

    @property
    def network(self) -> Any:
        """The model, of whose parts `AgeTask` knows the names."""
        return self.model

    # ---- before training ----

    def check_data(self, data: Any) -> None:
        """Check that the base run, if there is one, trained this model.

        Raises:
            CheckpointError: It trained another one.
            RunFolderError: It is no run.
        """
        self.label = Label(data.label, data.unit)
        if self.base_run is not None and not self.starts_from_checkpoint and self._base is None:
            base = BaseRun(self.base_run, self.base_checkpoint)
            base.require_model(describe_module(self.model, MODELS))
            self._base = base

    def check_callbacks(self, callbacks: Sequence[Callback]) -> None:
        """Check that no callback needs the images where their features take their place.

        Raises:
            ConfigError: One does.
        """
        smooths = any(isinstance(one, FeatureSmoothing) for one in callbacks)
        if smooths and self.retrain and self.cache_features:
            raise ConfigError(
                "FeatureSmoothing goes over the images after every epoch, so their features cannot "
                "be cached: give --model.cache_features false, or leave the callback out"
            )

    def take_backbone(self, data: LabelDataModule) -> None:
        """Load the base run's backbone, and have its features computed where they are cached."""
        if not self.starts_from_checkpoint:
            assert self._base is not None
            self._base.warn_of_other_data(data)
            self._base.load_into(self.network.backbone)
        if self.cache_features:
            with first_process_first(self.trainer):
                use_features(data, self.network.backbone, self.trainer.strategy.root_device)

    def setup(self, stage: str) -> None:
        """Take backbone, label range and validation bins, then go on as any regression."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None:
            self.check_data(data)
            if self.retrain:
                self.check_callbacks(cast(Any, self.trainer).callbacks)
                self.take_backbone(data)
            self.labels = data.label_range()
            if isinstance(self.criterion, RegressionLoss) and self.criterion.label_range is None:
                self.criterion.set_label_range(self.labels)
            self.validation = AgeValidation(data.bins())
        super().setup(stage)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but a frozen backbone, which stays in evaluation mode."""
        super().train(mode)
        if self.retrain:
            self.network.backbone.eval()
        return self

    def label_range(self) -> tuple[float, float]:
        """Return the ends of the label range: the loss's, else those of the training labels."""
        ends = getattr(self.criterion, "label_range", None) or self.labels
        if ends is None:
            raise ConfigError("expected a loss with a label_range where there are no data")
        return ends

    # ---- steps ----

    def features(self, batch: Batch) -> Tensor:
        """Return the features (B, D) of a batch: its own, or those of its images."""
        if "features" in batch:
            return batch["features"]
        if self.retrain:
            return encode(self.network.features, batch["image"])
        features: Tensor = self.network.features(batch["image"])
        return features

    def predict(self, features: Tensor) -> Tensor:
        """Return raw predictions (B,) of features (B, D), in float32 whatever the precision.

        Labels around 100 lie half a unit apart in bfloat16.
        """
        with torch.autocast(features.device.type, enabled=False):
            labels: Tensor = self.network.head(features.float()).squeeze(-1)
        return labels

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the labels, all of which count."""
        return batch["label"], None

    def compute_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch of image (B, 3, S, S) or features (B, D) and label (B,)."""
        loss: Tensor = self.criterion(self.predict(self.features(batch)), batch["label"])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Compare the read-out."""
        predictor = Predictor(self.model, self.criterion, self.input_spec, self.readout)
        raw = self.predict(self.features(batch))
        preds = predictor.read_out(raw, (self.readout,))[self.readout]
        self.validation.update(preds, batch["label"])

    # ---- checkpoints ----

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is this model's, and take a frozen backbone from it.

        Features are computed before the engine loads the weights.
        """
        super().on_load_checkpoint(checkpoint)
        if self.retrain:
            load_backbone(self.network.backbone, checkpoint, "the run to resume")


class AgeValidation(nn.Module):
    """MAE over all samples, and the mean over the labels' bins by which the best epoch is chosen.

    Args:
        bins: One bin per age.

    Example:
        >>> validation = AgeValidation(LabelBins([19.5, 20.5, 21.5]))
        >>> validation.update(torch.tensor([21.0, 22.0, 25.0]), torch.tensor([20.0, 20.0, 21.0]))
        >>> validation.compute()["val/bmae"]
        2.75
    """

    def __init__(self, bins: LabelBins) -> None:
        super().__init__()
        self.metric = BinnedMetrics(bins)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch (B,); labels that are NaN are padding and count nowhere."""
        self.metric.update(preds, target, target.isfinite())

    def compute(self) -> dict[str, float]:
        """Return the metrics by the names they are logged under."""
        result = self.metric.compute()
        values = {
            "val/bmae": result["per_bin_mean"]["overall"]["mae"],
            "val/mae": result["overall"]["mae"],
            "val/gm": result["overall"]["gm"],
        }
        return {name: value for name, value in values.items() if value is not None}

    def reset(self) -> None:
        """Forget the batches."""
        self.metric.reset()
