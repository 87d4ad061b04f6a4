"""The methods of the benchmark: which loss of the package each one minimises, and how."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from depthbal.errors import ConfigError
from depthbal.losses import (
    BMCLoss,
    BNILoss,
    DepthNoise,
    GAILoss,
    MSELoss,
    NoiseModule,
    RegressionLoss,
    ReweightedLoss,
    balance_predictions,
    truncated_normal_mean,
)
from depthbal.priors import Histogram
from depthbal.synthetic.problems import NOISE_SIGMA, Column

BIN_WIDTH = 0.1  # of the histograms of BNI and of re-weighting


@dataclass(frozen=True)
class Settings:
    """What a benchmark may vary.

    batch_size: labels that BMC sees at once; n_components: of GAI's mixture, None for the published
    number; noise_sigma: of the losses whose noise scale is fixed.
    """

    batch_size: int = 256
    n_components: int | None = None
    noise_sigma: float = NOISE_SIGMA

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"expected batches of at least 2 labels, got {self.batch_size}")
        if self.n_components is not None and self.n_components < 1:
            raise ConfigError(f"expected at least 1 component, got {self.n_components}")
        if not self.noise_sigma > 0:
            raise ConfigError(f"expected a positive noise_sigma, got {self.noise_sigma}")


@dataclass(frozen=True)
class Task:
    """What a loss is built from: one seed's labels (n, D) that count, and the noise scale."""

    column: Column
    seed: int
    labels: Tensor
    settings: Settings
    noise: NoiseModule

    @property
    def plain(self) -> dict[str, Any]:
        """Arguments of the plain losses: solvers want sums over labels."""
        return {"reduction": "sum", "event_dim": int(self.column.dim > 1)}

    @property
    def balanced(self) -> dict[str, Any]:
        """Arguments of the balanced losses: solvers want the likelihood itself."""
        return {**self.plain, "scale": "none", "noise": self.noise}

    @property
    def histogram(self) -> Histogram:
        """The labels in bins over the range."""
        return Histogram.regular(*self.column.label_range, BIN_WIDTH).update(self.labels[:, 0])


@dataclass(frozen=True)
class Method:
    """A row of the table.

    title: for people; build: the loss for one seed; learned: whether the noise scale is learned;
    batched: whether the loss sees batches, its prior being theirs; afterwards: what becomes of the
    predictions (m, D) of a seed.
    """

    title: str
    build: Callable[[Task], RegressionLoss]
    learned: bool = False
    batched: bool = False
    afterwards: Callable[[Tensor, Task], Tensor] | None = None


class InverseDensityLoss(MSELoss):
    """The squared error with weights 1 / p_train(y) of mean 1, p_train being the true one."""

    def __init__(self, column: Column, **options: Any) -> None:
        super().__init__(**options)
        self.column = column

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weighted squared error per label."""
        log_prob = self.column.log_prob(target if self.event_dim else target[..., None])
        weights = (-log_prob).softmax(0) * log_prob.numel()
        return super().elementwise(preds, target, mask) * weights


def _vanilla(task: Task) -> RegressionLoss:
    return MSELoss(**task.plain)


def _gai(task: Task) -> RegressionLoss:
    return GAILoss(task.column.prior(task.seed, task.settings.n_components), **task.balanced)


def _gai_depth(task: Task) -> RegressionLoss:
    return _gai(replace(task, noise=DepthNoise(task.settings.noise_sigma)))


def _bmc(task: Task) -> RegressionLoss:
    return BMCLoss(**task.balanced)


def _bni(**options: Any) -> Callable[[Task], RegressionLoss]:
    return lambda task: BNILoss(task.histogram, **options, **task.balanced)


def _reweighted(**options: Any) -> Callable[[Task], RegressionLoss]:
    return lambda task: ReweightedLoss(task.histogram, reduction="sum", **options)


def _balanced_afterwards(preds: Tensor, task: Task) -> Tensor:
    prior = task.column.prior(task.seed, task.settings.n_components)
    return balance_predictions(preds, prior, task.settings.noise_sigma)


def _read_out(preds: Tensor, task: Task) -> Tensor:
    return truncated_normal_mean(preds, task.settings.noise_sigma, task.column.label_range)


# Rows of the paper's table; *: the noise scale is given.
TABLE_METHODS = {
    "vanilla": Method("Vanilla", _vanilla),
    "reweight": Method("Reweight", lambda task: InverseDensityLoss(task.column, **task.plain)),
    "gai": Method("GAI*", _gai),
    "bmc": Method("BMC*", _bmc, batched=True),
    "gai_learned": Method("GAI", _gai, learned=True),
    "bmc_learned": Method("BMC", _bmc, learned=True, batched=True),
}
SCALAR_METHODS = {
    "bni": Method("BNI*", _bni()),
    "bni_learned": Method("BNI", _bni(), learned=True),
    "posthoc": Method("Post-hoc*", _vanilla, afterwards=_balanced_afterwards),
    "gai_readout": Method("GAI*, read out", _gai, afterwards=_read_out),
    "bni_half": Method("BNI*, tau 1/2", _bni(tau=0.5)),
    "bni_laplace": Method("BNI*, Laplace", _bni(family="laplace")),
    "bni_huber": Method("BNI*, Huber", _bni(family="huber")),
    "gai_depth": Method("GAI, sigma(p)", _gai_depth),
    "reweight_bins": Method("Reweight, bins", _reweighted()),
    "reweight_lds": Method("Reweight, LDS", _reweighted(smoothing="gaussian")),
    "reweight_sqrt": Method("Reweight, square root", _reweighted(weighting="sqrt_inverse")),
}
METHODS = TABLE_METHODS | SCALAR_METHODS
