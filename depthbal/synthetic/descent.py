"""L-BFGS for networks, and for losses that are not convex, seed by seed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from depthbal.losses.noise import SIGMA_BOUNDS
from depthbal.synthetic.data import SyntheticData
from depthbal.synthetic.fits import Fit, note_bound
from depthbal.synthetic.linear import LinearRegressor, Whitening, balanced_start
from depthbal.synthetic.methods import Method, Settings, batches
from depthbal.synthetic.networks import small_network
from depthbal.synthetic.problem import Problem

MAX_ITERATIONS = {"linear": 300, "network": 200}
GRADIENT_TOLERANCE = 1e-9


def descend(data: SyntheticData, method: Method, settings: Settings) -> Fit:
    """Return the minimum next to the start, for any loss of the package.

    Linear regressors start at the balanced optimum of normal labels; the networks of non-linear
    tasks at random weights, and end after 200 iterations. Networks pay a
    small price for the squares of the weights that bend them.

    Args:
        data: Of a column.
        method: What to minimise.
        settings: Batch size, components, noise scale.
    """
    rows = batches(data, method, settings)
    kind = "linear" if data.column.link is None else "network"
    iterations = 0
    problems = []
    for index, model in enumerate(_models(data, settings)):
        problem = Problem(data, index, method, settings, model, scale="none")
        iterations = max(iterations, _minimise(problem, rows, MAX_ITERATIONS[kind]))
        problems.append(problem)
    return collect(data, method, problems, iterations)


def collect(
    data: SyntheticData, method: Method, problems: Sequence[Problem], iterations: int
) -> Fit:
    """Return the trained regressors' predictions and noise scales."""
    preds = [p.predict(x) for p, x in zip(problems, data.test_inputs, strict=True)]
    if not method.learned:
        return Fit(torch.stack(preds), None, iterations)
    found = [problem.loss.noise_sigma for problem in problems]
    sigmas = torch.stack([sigma for sigma in found if sigma is not None]).double()
    notes = [
        note_bound(seed, float(sigma))
        for seed, sigma in zip(data.seeds, sigmas, strict=True)
        if sigma > 0.999 * SIGMA_BOUNDS[1]
    ]
    return Fit(torch.stack(preds), sigmas, iterations, tuple(notes))


def _models(data: SyntheticData, settings: Settings) -> list[nn.Module]:
    seeds = range(len(data.seeds))
    if data.column.link is not None:
        return [small_network(data, index) for index in seeds]
    whitening = Whitening.of(data)
    features = whitening.features(data.inputs)
    start, _ = balanced_start(data, features, settings.noise_sigma)
    return [LinearRegressor(whitening.of_seed(index), start[index]) for index in seeds]


def _minimise(problem: Problem, rows: list[slice], max_iterations: int) -> int:
    """Minimise in place and return the number of iterations."""
    optimizer = torch.optim.LBFGS(
        list(problem.parameters()),
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.mean_loss(rows) + problem.penalty()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    first = next(iter(optimizer.state.values()))
    return int(first["n_iter"])
