"""Every method at its optimum: linear regressors by L-BFGS in natural parameters, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from depthbal.losses import NoiseModule
from depthbal.losses.noise import SIGMA_BOUNDS
from depthbal.synthetic.methods import Method, Settings, Task
from depthbal.synthetic.problems import SyntheticData

MAX_ITERATIONS = 300
# Of the mean loss. Below, line searches fail at its rounding and take most of the time.
GRADIENT_TOLERANCE = 1e-8
DECREASE_TOLERANCE = 1e-14
START_PRECISIONS = (0.04, 25.0)  # within which 1 / s^2 is believed to begin with
LEAST_PRECISION = SIGMA_BOUNDS[1] ** -2


class Fit(NamedTuple):
    """The regressors of S seeds.

    test_preds (S, m, D): what they say about the test inputs; noise_sigma (S,), or None where the
    method does not learn it; iterations: of the slowest seed; notes: what deserves a remark.
    """

    test_preds: Tensor
    noise_sigma: Tensor | None
    iterations: int
    notes: tuple[str, ...] = ()


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

    Args:
        data: Of a column.
        method: What to minimise.
        settings: Batch size, components, noise scale.

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
    return Fit(
        torch.stack(preds),
        torch.stack(sigmas) if method.learned else None,
        max(iterations),
        tuple(note for note in notes if note),
    )


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
    found = minimize(
        value_and_gradient,
        parameters_to_vector(parameters).detach().numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(parameters_to_vector(lowest).detach().numpy()),
        options={
            "maxiter": MAX_ITERATIONS,
            "maxcor": 20,
            "gtol": GRADIENT_TOLERANCE,
            "ftol": DECREASE_TOLERANCE,
        },
    )
    vector_to_parameters(torch.from_numpy(found.x), parameters)
    return int(found.nit)


def _whitened(inputs: Tensor, test_inputs: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, D + 1) of inputs: mean 0 and covariance 1 over those that count, and 1.

    A linear model is the same function on either, but on features the Hessian is close to a
    multiple of the identity, whatever the inputs' scale and centre.
    """
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
