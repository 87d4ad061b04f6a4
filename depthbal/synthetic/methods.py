"""The methods of the benchmark: which loss of the package each one minimises, and how."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
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
from depthbal.losses.reduction import Reduction
from depthbal.priors import Histogram
from depthbal.synthetic.columns import NOISE_SIGMA, Column
from depthbal.synthetic.data import SyntheticData

BIN_WIDTH = 0.1  # of the histograms of BNI and of re-weighting
BATCH_SIZE = 256


@dataclass(frozen=True)
class Settings:
    """What a benchmark may vary.

    batch_size: labels that BMC sees at once; n_components: of GAI's mixture, None for the published
    number; noise_sigma: of the losses whose noise scale is fixed.
    """

    batch_size: int = BATCH_SIZE
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
    """One seed's data, as a loss is built for it.

    data: of all seeds; index: of the seed; noise: the noise scale; reduction, scale: of the loss.
    """

    data: SyntheticData
    index: int
    settings: Settings
    noise: NoiseModule
    reduction: Reduction = "mean"
    scale: str = "mean"

    @property
    def column(self) -> Column:
        """The column of the data."""
        return self.data.column

    @property
    def seed(self) -> int:
        """The seed of the data."""
        return self.data.seeds[self.index]

    @property
    def plain(self) -> dict[str, Any]:
        """Arguments of the plain losses."""
        return {"reduction": self.reduction, "event_dim": int(self.column.dim > 1)}

    @property
    def balanced(self) -> dict[str, Any]:
        """Arguments of the balanced losses."""
        return {**self.plain, "scale": self.scale, "noise": self.noise}

    @property
    def histogram(self) -> Histogram:
        """The training labels that count, in bins over the range."""
        counted = self.data.labels[self.index, self.data.counted[self.index], 0]
        return Histogram.regular(*self.column.label_range, BIN_WIDTH).update(counted)


@dataclass(frozen=True)
class Method:
    """A row of the table.

    title: for people; build: the loss for one seed; learned: whether the noise scale is learned;
    batched: whether the loss sees batches, its prior being theirs; weighted: whether labels weigh
    1 / p_train; convex: whether the loss is convex in (p / s^2, 1 / s^2); scalars: whether it is
    for labels of one dimension only; afterwards: what becomes of the predictions
    (m, D) of a seed.
    """

    title: str
    build: Callable[[Task], RegressionLoss]
    learned: bool = False
    batched: bool = False
    weighted: bool = False
    convex: bool = True
    scalars: bool = False
    afterwards: Callable[[Tensor, Column, int, Settings], Tensor] | None = None

    def label_weights(self, data: SyntheticData) -> Tensor | None:
        """Return the labels' weights (S, n), of mean 1 over those that count, or None."""
        if not self.weighted:
            return None
        weights = (-data.column.labels.log_prob(data.labels)).exp() * data.counted
        return weights * (data.counted.sum(1) / weights.sum(1))[:, None]


def _vanilla(task: Task) -> RegressionLoss:
    return MSELoss(**task.plain)


def _gai(task: Task) -> RegressionLoss:
    prior = task.column.labels.prior(task.seed, task.settings.n_components)
    return GAILoss(prior, **task.balanced)


def _gai_depth(task: Task) -> RegressionLoss:
    noise = DepthNoise(task.settings.noise_sigma)
    return _gai(dataclasses.replace(task, noise=noise))


def _bmc(**options: Any) -> Callable[[Task], RegressionLoss]:
    return lambda task: BMCLoss(**options, **task.balanced)


def _bni(**options: Any) -> Callable[[Task], RegressionLoss]:
    return lambda task: BNILoss(task.histogram, **options, **task.balanced)


def _reweighted(**options: Any) -> Callable[[Task], RegressionLoss]:
    return lambda task: ReweightedLoss(task.histogram, reduction=task.reduction, **options)


def _balanced_afterwards(preds: Tensor, column: Column, seed: int, settings: Settings) -> Tensor:
    prior = column.labels.prior(seed, settings.n_components)
    return balance_predictions(preds, prior, settings.noise_sigma)


def _read_out(preds: Tensor, column: Column, seed: int, settings: Settings) -> Tensor:
    return truncated_normal_mean(preds, settings.noise_sigma, column.label_range)


METHODS: dict[str, Method] = {
    "vanilla": Method("Vanilla", _vanilla),
    "reweight": Method("Reweight", _vanilla, weighted=True),
    "gai": Method("GAI*", _gai),
    "bmc": Method("BMC*", _bmc(), batched=True),
    "gai_learned": Method("GAI", _gai, learned=True),
    "bmc_learned": Method("BMC", _bmc(), learned=True, batched=True),
    "bni": Method("BNI*", _bni(), scalars=True),
    "bni_learned": Method("BNI", _bni(), learned=True, scalars=True),
    "posthoc": Method("Post-hoc*", _vanilla, scalars=True, afterwards=_balanced_afterwards),
    "gai_readout": Method("GAI*, read out", _gai, scalars=True, afterwards=_read_out),
    "bni_half": Method("BNI*, tau 1/2", _bni(tau=0.5), scalars=True),
    "bni_laplace": Method("BNI*, Laplace", _bni(family="laplace"), convex=False, scalars=True),
    "bni_huber": Method("BNI*, Huber", _bni(family="huber"), convex=False, scalars=True),
    "gai_depth": Method("GAI, sigma(p)", _gai_depth, convex=False, scalars=True),
    "reweight_bins": Method("Reweight, bins", _reweighted(), scalars=True),
    "reweight_lds": Method("Reweight, LDS", _reweighted(smoothing="gaussian"), scalars=True),
    "reweight_sqrt": Method(
        "Reweight, square root", _reweighted(weighting="sqrt_inverse"), scalars=True
    ),
}
TABLE_METHODS = list(METHODS)[:6]


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        ConfigError: There is none of this name.

    Example:
        >>> find_method("gai").title
        'GAI*'
    """
    if name not in METHODS:
        raise ConfigError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def batches(data: SyntheticData, method: Method, settings: Settings) -> list[slice]:
    """Return the rows that a loss sees together: a fixed partition, or all of them.

    The last batch of a partition takes a remainder too small to be balanced by itself.
    """
    count, size = data.labels.shape[1], settings.batch_size
    if not method.batched or count < 2 * size:
        return [slice(0, count)]
    starts = list(range(0, count - size + 1, size))
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]
