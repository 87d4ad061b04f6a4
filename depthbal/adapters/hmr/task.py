"""Training SPIN's regressor with a regression loss on rotation matrices."""

from typing import ClassVar

import numpy as np
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.adapters.hmr.validation import PoseValidation
from depthbal.errors import ConfigError
from depthbal.losses import MSELoss, RegressionLoss
from depthbal.predictor import Readout
from depthbal.priors import GaussianMixture, Histogram
from depthbal.training.frozen_features import first_process_first
from depthbal.training.regression_task import Batch, RegressionTask

ENTRIES = 216
"""Of the 24 rotation matrices of a pose, the vector that the loss sees."""


class HmrTask(RegressionTask):
    """Train the regressor of a `SpinNetwork` on features or pictures.

        pose_weight L(rotation matrices) / 216 + betas_weight mean |betas error|^2

    over the rows with a body, which are also all that a batch prior sees. A mixture prior is fitted
    to the rows that the training draws, with diagonal covariances: full ones leave the directions
    in which poses hardly vary without pull, and take minutes.

    Args:
        model: The network.
        criterion: A loss for vectors (event_dim 1): GAILoss, BMCLoss or MSELoss.
        optimizer: Optimizer with its arguments, without parameters.
        lr_scheduler: Schedule with its arguments, or null for a constant learning rate.
        noise_lr: Learning rate of a learned noise scale.
        readout: Kept for the checkpoint; vectors are read as they are.
        pose_weight: Of the pose's loss per matrix entry.
        betas_weight: Of the squared error of the shape per coefficient; SPIN: .001 of the pose's.
        prior_rows: Rows drawn for fitting a mixture prior.
        prior_floor: Smallest variance of its components along any matrix entry; null takes the
            core's, 1e-6 of the labels' mean variance.

    Raises:
        ConfigError: A criterion for scalars.
    """

    selection_metric: ClassVar[str] = "val/angle_regions"
    selection_title: ClassVar[str] = "validation angle over regions"
    validation: PoseValidation
    model: SpinNetwork

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        optimizer: OptimizerCallable = Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        noise_lr: float = 1e-2,
        readout: Readout = "raw",
        pose_weight: float = 1.0,
        betas_weight: float = 1e-3,
        prior_rows: int = 20_000,
        prior_floor: float | None = 1e-2,
    ) -> None:
        super().__init__(model, criterion, optimizer, lr_scheduler, noise_lr, readout)
        if getattr(criterion, "event_dim", 1) != 1:
            raise ConfigError("poses are vectors: give --model.criterion.init_args.event_dim 1")
        self.pose_weight, self.betas_weight = pose_weight, betas_weight
        self.prior_rows, self.prior_floor = prior_rows, prior_floor
        self.betas_loss = MSELoss(event_dim=1)
        self.validation = PoseValidation()

    # ---- before training ----

    def check_data(self, data: HmrDataModule) -> None:
        """Check that the folder has what training and evaluation take.

        Raises:
            ConfigError: Features of another width.
            DataError: Neither features nor all pictures, or no bodies to score the test set with.
        """
        data.check_inputs(self.model.backbone, self.model.features)
        data.measure()

    def setup(self, stage: str) -> None:
        """Have the features computed, by the first process alone, and go on as any training."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None:
            self.check_data(data)
            with first_process_first(self.trainer):
                data.use_backbone(self.model.backbone, self.trainer.strategy.root_device)
            self.validation.mean_rotmats.copy_(data.mean_params().rotmats)
        super().setup(stage)

    def initialise(self, histogram: Histogram) -> None:
        """Fit the loss's prior to the training poses, and start the regressor at the mean pose."""
        self.histogram = histogram
        data: HmrDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.model.start_from(data.mean_params())
        if isinstance(self.criterion, RegressionLoss) and self.criterion.needs_prior:
            components = getattr(self.criterion, "n_components", 16)
            self.criterion.set_prior(
                fit_pose_prior(data, components, self.prior_rows, self.prior_floor)
            )

    def label_range(self) -> tuple[float, float]:
        """Return the range of a rotation matrix's entries."""
        return -1.0, 1.0

    # ---- steps ----

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the rotation matrices as vectors (B, 216), and which of them count."""
        return rotmats_of(batch["pose"]).flatten(1), batch["valid"]

    def compute_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch of `PeopleDataset`'s samples; 0 where no body counts."""
        preds = self.model(batch["input"])
        target, valid = self.targets(batch)
        pose: Tensor = self.criterion(preds.rotmats.flatten(1), target, valid)
        shape: Tensor = self.betas_loss(preds.betas, batch["betas"], valid)
        shape = shape / preds.betas.shape[1]
        return self.pose_weight * pose / ENTRIES + self.betas_weight * shape

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Compare the predicted pose of the rows with a body."""
        valid = batch["valid"]
        preds = self.model(batch["input"][valid])
        self.validation.update(preds.rotmats, rotmats_of(batch["pose"][valid]))


def fit_pose_prior(
    data: HmrDataModule, components: int = 16, rows: int = 20_000, floor: float | None = None
) -> GaussianMixture:
    """Return a diagonal mixture of the rotation matrices (216,) that the training draws.

    Args:
        data: Set up for training.
        components: K.
        rows: How many rows are drawn for it, in the mixture's shares, with a body.
        floor: Smallest variance; see `GaussianMixture.fit`.

    Source: Ren et al., CVPR 2022, supplement 2.4 (K = 16; the covariances' form is not told).
    """
    assert data.train_set is not None
    people = data.train_set.people
    weights = data.train_weights().numpy() * people.valid
    # evenly spaced along the shares: as many of each row as chance would draw on average
    shares = np.cumsum(weights) / weights.sum()
    drawn = np.searchsorted(shares, (np.arange(rows) + 0.5) / rows)
    poses = rotmats_of(torch.from_numpy(people.pose[drawn])).flatten(1)
    return GaussianMixture.fit(
        poses, components, covariance_type="diag", variance_floor=floor, seed=data.seed
    )
