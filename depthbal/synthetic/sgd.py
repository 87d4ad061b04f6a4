"""The supplement's recipe: stochastic gradient descent on raw inputs."""

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from depthbal.errors import ConfigError
from depthbal.losses import NonFiniteError
from depthbal.synthetic.columns import Column
from depthbal.synthetic.data import SyntheticData
from depthbal.synthetic.descent import collect
from depthbal.synthetic.fits import Fit
from depthbal.synthetic.methods import Method, Settings
from depthbal.synthetic.networks import small_network
from depthbal.synthetic.problem import Problem

MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """Epochs over the labels in batches, the optimizer and its learning rates.

    The learning rate follows half a cosine to 0, as in the published code; that of sigma is
    constant. sigma_lr is the step of log sigma.
    """

    epochs: int
    optimizer: str
    lr: float
    sigma_lr: float
    batch_size: int = 256


def published_recipe(column: Column) -> Recipe:
    """Return the supplement's recipe for a column.

    The non-linear tasks have no published network; a small one diverges at the supplement's
    learning rate of 0.2, and is trained with 0.01.

    Example:
        >>> from depthbal.synthetic import parse_column
        >>> published_recipe(parse_column("normal_high")).epochs
        2000
    """
    if column.link is not None:
        return Recipe(10_000, "adam", 0.01, 0.01)
    if column.dim > 1:
        return Recipe(10_000, "adam", 0.2, 0.01)
    return Recipe(2_000, "sgd", 1e-3, 1e-3)


def train(
    data: SyntheticData,
    method: Method,
    settings: Settings,
    recipe: Recipe | None = None,
    epochs: int | None = None,
) -> Fit:
    """Return the regressors after the last epoch, seed by seed.

    The inputs are taken as they are, so that in one dimension plain gradient descent does not
    converge: they are centred at 5, and the Hessian's eigenvalues differ 600 times.

    Args:
        data: Of a column.
        method: What to minimise.
        settings: Components, noise scale.
        recipe: The supplement's when omitted.
        epochs: In place of the recipe's.

    Raises:
        ConfigError: No epochs, or a training that diverged.
    """
    recipe = recipe or published_recipe(data.column)
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if recipe.epochs < 1:
        raise ConfigError(f"expected at least 1 epoch, got {recipe.epochs}")
    recipe = replace(recipe, batch_size=settings.batch_size)
    problems = []
    for index, seed in enumerate(data.seeds):
        model = _model(data, index)
        problem = Problem(data, index, method, settings, model, scale="mean")
        try:
            _train(problem, recipe, seed)
        except NonFiniteError as error:
            raise ConfigError(
                f"the training of {data.column.name}, seed {seed}, diverged: lower the learning "
                f"rate {recipe.lr:g}, or use the exact solver"
            ) from error
        problems.append(problem)
    return collect(data, method, problems, recipe.epochs)


def _train(problem: Problem, recipe: Recipe, seed: int) -> None:
    """Train in place; every epoch shuffles the labels into batches and drops the remainder."""
    groups = [
        {"params": list(problem.model.parameters()), "lr": recipe.lr},
        {"params": problem.loss.noise_parameters(), "lr": recipe.sigma_lr},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(groups)
    else:
        optimizer = torch.optim.SGD(groups, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(seed)
    count = len(problem.labels)
    size = min(recipe.batch_size, count)
    for epoch in range(recipe.epochs):
        share = (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
        optimizer.param_groups[0]["lr"] = recipe.lr * share
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            optimizer.zero_grad()
            loss = problem.mean_loss([order[start : start + size]]) + problem.penalty()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _model(data: SyntheticData, index: int) -> nn.Module:
    """Return the regressor at its random start, the same for every method."""
    if data.column.link is not None:
        return small_network(data, index)
    dim = data.column.dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.seeds[index])
        return nn.Linear(dim, dim, dtype=data.inputs.dtype)
