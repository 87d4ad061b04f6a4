"""The methods of the benchmark, which loss each one minimises, and their optima.

Linear regressors are found by L-BFGS in natural parameters, in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

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
from depthbal.losses.noise import SIGMA_BOUNDS
from depthbal.priors import GaussianMixture, Histogram
from depthbal.synthetic.problems import NOISE_SIGMA, Column, SyntheticData

MAX_ITERATIONS = 300
# Of the mean loss. Below, line searches fail at its rounding and take most of the time.
GRADIENT_TOLERANCE = 1e-8
DECREASE_TOLERANCE = 1e-14
START_PRECISIONS = (0.04, 25.0)  # within which 1 / s^2 is believed to begin with
LEAST_PRECISION = SIGMA_BOUNDS[1] ** -2
BIN_WIDTH = 0.1  # of the histograms of BNI and of re-weighting


@dataclass(frozen=True)
class Settings:
    """What a benchmark may vary."""

    batch_size: int = 256  # labels that BMC sees at once
    n_components: int | None = None  # of GAI's mixture; None: as published
    noise_sigma: float = NOISE_SIGMA  # where it is fixed

    def __post_init__(self) -> None:
        if self.batch_size < 2 or (self.n_components or 1) < 1 or not self.noise_sigma > 0:
            raise ConfigError(
                "expected a batch_size of at least 2, n_components of at least 1 and a positive "
                f"noise_sigma, got {self}"
            )


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
    def prior(self) -> GaussianMixture:
        """The published mixture, or one of so many components."""
        return self.column.prior(self.seed, self.settings.n_components)

    @property
    def histogram(self) -> Histogram:
        """The labels in bins over the range."""
        return Histogram.regular(*self.column.label_range, BIN_WIDTH).update(self.labels[:, 0])


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    title: str
    build: Callable[[Task], RegressionLoss]  # the loss for one seed
    learned: bool = False  # the noise scale
    batched: bool = False  # the loss sees batches, its prior being theirs
    afterwards: Callable[[Tensor, Task], Tensor] | None = None  # of predictions (m, D) of a seed


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


def _balanced(loss: Any, prior: str = "", **options: Any) -> Callable[[Task], RegressionLoss]:
    """Return the maker of a balanced loss, over a prior of the task or over batches."""
    return lambda task: loss(*([getattr(task, prior)] if prior else []), **options, **task.balanced)


_gai, _bmc = _balanced(GAILoss, "prior"), _balanced(BMCLoss)
_bni = partial(_balanced, BNILoss, "histogram")


def _gai_depth(task: Task) -> RegressionLoss:
    return _gai(replace(task, noise=DepthNoise(task.settings.noise_sigma)))


def _reweighted(**options: Any) -> Callable[[Task], RegressionLoss]:
    return lambda task: ReweightedLoss(task.histogram, reduction="sum", **options)


def _balanced_afterwards(preds: Tensor, task: Task) -> Tensor:
    return balance_predictions(preds, task.prior, task.settings.noise_sigma)


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


# ---- optima ----


class Fit(NamedTuple):
    """The regressors of S seeds."""

    test_preds: Tensor  # (S, m, D), of the test inputs
    noise_sigma: Tensor | None  # (S,), None where it is not learned
    iterations: int  # of the slowest seed
    notes: tuple[str, ...] = ()  # what deserves a remark


class PrecisionNoise(NoiseModule):
    """The noise scale s by its precision 1 / s^2, fixed or learned."""

    def __init__(self, precision: Tensor, learned: bool) -> None:
        super().__init__()
        self.precision = nn.Parameter(precision, requires_grad=learned)

    def forward(self, preds: Tensor) -> Tensor:
        """Return s, shape ()."""
        return self.precision.rsqrt()


def solve(data: SyntheticData, method: Method, settings: Settings | None = None) -> Fit:
    """Return a method's linear regressors at the optimum, for all seeds of a column.

    The balanced posterior p_train(y) N(y; p, s^2 I) / E(p) is an exponential family in
    (p / s^2, 1 / s^2), so its negative logarithm, the loss, is convex in them: L-BFGS finds the
    global minimum. Where that lies at 1 / s^2 <= 0, as that of learned-sigma GAI does for residuals
    that vary more than the prior, s stops at the bound of the package's learned noise. BMC sees a
    fixed partition into batches. Other noise families, and noise that depends on the prediction,
    are not convex: their optimum is the one next to the balanced optimum of normal labels.

    Example:
        >>> from depthbal.synthetic import METHODS, draw_data, parse_column
        >>> data = draw_data(parse_column("normal_low"), [0])
        >>> fit = solve(data, METHODS["gai"])
        >>> data.test_errors(fit.test_preds).item() < 0.1
        True
    """
    chosen = settings or Settings()
    fits = [_solve_seed(data, index, method, chosen) for index in range(len(data.seeds))]
    preds, sigmas, iterations, notes = zip(*fits, strict=True)
    sigma = torch.stack(sigmas) if method.learned else None
    return Fit(torch.stack(preds), sigma, max(iterations), tuple(filter(None, notes)))


def _solve_seed(
    data: SyntheticData, index: int, method: Method, settings: Settings
) -> tuple[Tensor, Tensor, int, str]:
    """Return test predictions (m, D), sigma (), iterations and a remark on one seed."""
    counted, seed, labels = data.counted[index], data.seeds[index], data.labels[index]
    features, test_features = _whitened(data.inputs[index], data.test_inputs[index], counted)
    mean = labels[counted].mean(0)
    given = None if method.learned else settings.noise_sigma
    start, precision = _balanced_start(features[counted], labels[counted] - mean, given)
    coefficients, noise = nn.Parameter(start), PrecisionNoise(precision, method.learned)
    task = Task(data.column, seed, labels[counted], settings, noise)
    loss = method.build(task).double()
    # A fixed partition, whose last batch takes a remainder too small to be balanced by itself.
    parts = len(labels) // settings.batch_size if method.batched else 1
    cuts = [settings.batch_size * part for part in range(1, parts)]
    batches = [rows[counted[rows]] for rows in torch.arange(len(labels)).tensor_split(cuts)]

    def predict(features: Tensor) -> Tensor:
        return mean + features @ coefficients / noise.precision

    def mean_loss() -> Tensor:
        preds, target = predict(features), labels
        if not loss.event_dim:
            preds, target = preds[:, 0], target[:, 0]
        sums = [loss(preds[batch], target[batch]) for batch in batches if len(batch)]
        return torch.stack(sums).sum() / counted.sum()

    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    iterations = _minimise(mean_loss, [coefficients, *learned], noise.precision)
    with torch.no_grad():
        preds, sigma = predict(test_features), noise(labels)
    note = ""
    if method.learned and noise.precision <= LEAST_PRECISION:
        note = (
            f"seed {seed}: sigma is at its bound {float(sigma):g}, because the residuals vary as "
            "much as the labels do under the prior: the likelihood grows with sigma for ever"
        )
    elif iterations >= MAX_ITERATIONS:
        note = f"seed {seed}: not converged after {iterations} iterations"
    return method.afterwards(preds, task) if method.afterwards else preds, sigma, iterations, note


def _minimise(
    mean_loss: Callable[[], Tensor], parameters: list[nn.Parameter], precision: nn.Parameter
) -> int:
    """Minimise in place, the precision staying above its bound; return the iterations."""

    def value_and_gradient(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        vector_to_parameters(torch.from_numpy(vector), parameters)
        loss = mean_loss()
        slopes = torch.autograd.grad(loss, parameters)
        return loss.item(), parameters_to_vector(slopes).numpy()

    floors = [LEAST_PRECISION if p is precision else -np.inf for p in parameters]
    lowest = [torch.full_like(p, floor) for p, floor in zip(parameters, floors, strict=True)]
    start, low = (parameters_to_vector(each).detach().numpy() for each in (parameters, lowest))
    limits = {"gtol": GRADIENT_TOLERANCE, "ftol": DECREASE_TOLERANCE, "maxiter": MAX_ITERATIONS}
    found = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(low),
        options={**limits, "maxcor": 20},
    )
    vector_to_parameters(torch.from_numpy(found.x), parameters)
    return int(found.nit)


def _whitened(inputs: Tensor, test_inputs: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, D + 1): mean 0 and covariance 1 over those that count, and 1."""
    # a linear model is the same function on either, but here the Hessian is near the identity's
    mean = inputs[counted].mean(0)
    root = torch.linalg.cholesky(inputs[counted].T.cov(correction=0).reshape(len(mean), -1))

    def features(values: Tensor) -> Tensor:
        whitened = torch.linalg.solve_triangular(root, (values - mean).T, upper=False).T
        return torch.nn.functional.pad(whitened, (0, 1), value=1.0)

    return features(inputs), features(test_inputs)


def _balanced_start(
    features: Tensor, labels: Tensor, noise_sigma: float | None
) -> tuple[Tensor, Tensor]:
    """Return coefficients (D + 1, D) of p / s^2, and 1 / s^2, near the balanced optimum.

    They are the optimum of GAI with one component of mean 0 and the labels' covariance C. With the
    coefficients B of least squares and the covariance R of its residuals:

        B (1 / s^2 + C^-1),   1 / s^2 = trace(R^-1 - C^-1) / D   where no s is given
    """
    squares = torch.linalg.lstsq(features, labels).solution
    inverse = torch.linalg.inv(labels.T @ labels / len(labels))
    errors = labels - features @ squares
    gain = torch.linalg.inv(errors.T @ errors / len(labels)) - inverse
    precision = gain.diagonal().mean().clamp(*START_PRECISIONS)
    if noise_sigma is not None:
        precision = precision.new_tensor(noise_sigma**-2)
    return (squares * precision + squares @ inverse).contiguous(), precision
