"""Training SPIN's regressor with a regression loss on rotation matrices, and scoring its bodies."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam

from depthbal.adapters.hmr.body import ERRORS, Meshes, rotmats_of
from depthbal.adapters.hmr.files import TEST
from depthbal.adapters.hmr.network import read_mean
from depthbal.data.loader import PADDING
from depthbal.data.pairs import on_disk
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Scores, balanced_errors
from depthbal.losses import MSELoss, RegressionLoss
from depthbal.models.weights import first_few
from depthbal.priors import GaussianMixture
from depthbal.training.task import Batch, Task

UNITS = {"vertex": "mm", "geodesic": "radians, mean over 24 joints"}
FACTS = {
    "predictions": "by the neutral model, for mpvpe by that of the truth, as released",
    "joints": "14 of Human3.6M's regressor, relative to the pelvis",
    "distance": "mean vertex distance to the neutral body in the mean pose, nothing aligned",
    "balanced": "all: mean over the non-empty of 100 equal parts of the test set's range of "
    "the distance; tail10, tail5: mean over the farthest 10 and 5 % of the samples",
}


class HmrTask(Task):
    """Train the regressor of a `SpinNetwork` on features or pictures; a backbone is frozen.

        pose_weight L(rotation matrices) / 216 + betas_weight mean |betas error|^2

    over the rows with a body, which are also all that a batch prior sees. A mixture prior is fitted
    to them with diagonal covariances: full ones leave the directions in which poses hardly vary
    without pull, and take minutes.

    Args:
        model: The network.
        criterion: A loss for vectors (event_dim 1): GAILoss, BMCLoss or MSELoss.
        pose_weight: Of the pose's loss per matrix entry.
        betas_weight: Of the squared error of the shape per coefficient; SPIN: .001 of the pose's.
        prior_rows: Rows drawn for fitting a mixture prior.
        prior_floor: Smallest variance of its components; null: 1e-6 of the labels' mean variance.
        **kwargs: Of `Task`: optimizer, lr_scheduler, noise_lr and weights_from.
    """

    selection_metric = "val/mpjpe_bins"
    selection_title = "validation MPJPE over regions"
    main_metric = "mpjpe"
    study_metrics = (
        "overall.mpjpe",
        *(f"balanced.vertex.mpjpe.{part}" for part in ("all", "tail10", "tail5")),
    )
    model: Any

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        optimizer: OptimizerCallable = Adam,
        pose_weight: float = 1.0,
        betas_weight: float = 1e-3,
        prior_rows: int = 20_000,
        prior_floor: float | None = 1e-2,
        **kwargs: Any,
    ) -> None:
        frozen = () if getattr(model, "backbone", None) is None else ("backbone",)
        super().__init__(model, criterion, optimizer, readout="raw", freeze=frozen, **kwargs)
        if getattr(criterion, "event_dim", 1) != 1:
            raise ConfigError("poses are vectors: give --model.criterion.event_dim 1")
        self.pose_weight, self.betas_weight = pose_weight, betas_weight
        self.prior_rows, self.prior_floor = prior_rows, prior_floor
        self.betas_loss = MSELoss(event_dim=1)
        # in a list, and so no part of the task: DDP would send the bodies at every step
        self.meshes: list[Meshes] = []

    def check_data(self, data: Any) -> None:
        """Check that there are bodies, and features of the right width or all of the pictures."""
        self.meshes, network = [data.meshes], self.model
        known = network.weights or self.weights_from or self.starts_from_checkpoint
        for images in (data.train_set, data.test_set):
            if images.features is not None:
                if (width := images.features.shape[1]) != network.features:
                    raise ConfigError(f"{data.root}/features: set --model.model.features {width}")
                continue
            if network.backbone is None or not known:
                raise ConfigError(
                    f"{data.root}/features lacks those of some data set, and the backbone that "
                    "computes them needs --model.model.weights, SPIN's model_checkpoint.pt"
                )
            paths = images.people["file"].tolist()
            if missing := [path for path, there in on_disk(Path(), paths).items() if not there]:
                found = f"{len(missing)} of {len(paths)} pictures are missing"
                raise DataError(f"{found}: {first_few(missing)}")

    def prepare(self, data: Any) -> None:
        """Have features of the pictures computed once, unless they change in every epoch."""
        self.cache_features = data.train_set.features is None and not data.augment
        super().prepare(data)

    def fit_prior(self, data: Any) -> None:
        """Fit the loss's prior to the training poses, and start the regressor at the mean pose."""
        if not self.model.keep_head:
            self.model.head.start_from(read_mean(data.root))
        if isinstance(self.criterion, RegressionLoss) and self.criterion.needs_prior:
            components = getattr(self.criterion, "n_components", 16)
            prior = fit_pose_prior(data, components, self.prior_rows, self.prior_floor)
            self.criterion.set_prior(prior)
        super().fit_prior(data)

    def training_loss(self, raw: Any, batch: Batch) -> Tensor:
        """Return the loss of a batch; 0 where no body counts."""
        target, valid = rotmats_of(batch["pose"]).flatten(1), batch["valid"]
        pose: Tensor = self.criterion(raw.rotmats.flatten(1), target, valid)
        shape: Tensor = self.betas_loss(raw.betas, batch["betas"], valid) / raw.betas.shape[1]
        return self.pose_weight * pose / target.shape[1] + self.betas_weight * shape

    def make_scores(self, data: Any, split: Literal["val", "test"]) -> Scores:
        """Return the empty scores of the errors over the distance to the mean pose."""
        self.meshes = [data.meshes]
        gender = data.test_set.people["gender"]
        known = (gender >= 0).sum() if data.ground_truth == "gendered" else 0
        truth = f"{data.ground_truth}: {known} of {len(gender)} bodies by the model of their gender"
        return Scores(
            data.bins(),
            ("",),
            "",
            terms=("count", *ERRORS),
            label=data.label,
            main_metric=self.main_metric,
            columns=tuple(UNITS),
            protocol={"name": TEST, **self.facts(data), "ground_truth": truth, **FACTS},
        )

    def score(self, batch: Batch, scores: Scores) -> None:
        """Add the errors of a batch, of the people with a body."""
        preds: Any = self.predict(batch)
        truth, meshes = (rotmats_of(batch["pose"]), batch["betas"]), self.meshes[0].to(self.device)
        errors, distances = meshes(preds[:2], truth, batch["gender"])
        counted = batch["index"].masked_fill(~batch["valid"], PADDING)
        far = distances["vertex"]
        scores.update_errors(errors, far, batch["name"], batch["group"], distances, counted)

    def validation_metrics(self, result: dict[str, Any]) -> dict[str, float | None]:
        """Return the MPJPE, as the mean over regions and plain."""
        of_regions = result["per_bin_mean"]["overall"]["mpjpe"]
        return {self.selection_metric: of_regions, "val/mpjpe": result["overall"]["mpjpe"]}

    def result(self, scores: Scores) -> dict[str, Any]:
        """Return the balanced errors by both distances."""
        sums = scores.sums().sum(axis=1)
        errors = {name: sums[:, scores.terms.index(name)] for name in ERRORS}
        found = {
            name: {"unit": unit, **balanced_errors(errors, scores.column(name), scores.groups)}
            for name, unit in UNITS.items()
        }
        return {"balanced": found}


def fit_pose_prior(
    data: Any, components: int = 16, rows: int = 20_000, floor: float | None = None
) -> GaussianMixture:
    """Return a diagonal mixture of the matrices (216,) that training draws (supplement 2.4)."""
    people = data.train_set.people
    weights = people["weight"] * people["valid"]
    # evenly spaced along the shares: as many of each row as chance would draw on average
    shares = np.cumsum(weights) / weights.sum()
    drawn = np.searchsorted(shares, (np.arange(rows) + 0.5) / rows)
    poses = rotmats_of(torch.from_numpy(people["pose"][drawn])).flatten(1)
    return GaussianMixture.fit(
        poses, components, covariance_type="diag", variance_floor=floor, seed=data.seed
    )
