"""Newton's method on the convex losses of linear regressors, all seeds at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.losses.noise import SIGMA_BOUNDS
from depthbal.synthetic.derivatives import Derivatives

MAX_ITERATIONS = 100
# A step that lowers the mean loss by less is the last: the error left is of its square.
SMALLEST_DECREASE = 1e-12
ARMIJO = 1e-4
BACKTRACK = 0.25
ROUNDING = 1e-12
LEAST_PRECISION = SIGMA_BOUNDS[1] ** -2
LARGEST_SHRINKING = 0.1  # of 1 / s^2 in one step

# (coefficients of p / s^2 (S, F, D), 1 / s^2 (S,), active seeds (S,)) to derivatives per label
Evaluate = Callable[[Tensor, Tensor, Tensor], Derivatives]


class Optimum(NamedTuple):
    """What Newton's method found for S seeds.

    coefficients (S, F, D) of the prediction p; noise_sigma (S,); iterations until the last seed
    ended; converged (S,); at_bound (S,): sigma wanted to grow beyond its bound.
    """

    coefficients: Tensor
    noise_sigma: Tensor
    iterations: int
    converged: Tensor
    at_bound: Tensor


class _State(NamedTuple):
    """Parameters (S, F D + 1), the mean loss (S,) and its gradient and Hessian in them."""

    parameters: Tensor
    value: Tensor
    gradient: Tensor
    hessian: Tensor

    def where(self, chosen: Tensor, other: "_State") -> "_State":
        """Return this state for the chosen seeds, the other for the rest."""
        pairs = zip(self, other, strict=True)
        return _State(*(torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


def minimise(
    evaluate: Evaluate,
    features: Tensor,
    counts: Tensor,
    start: Tensor,
    noise_sigma: Tensor,
    learned: bool,
) -> Optimum:
    """Return the minimum over linear regressors, and over the noise scale where it is learned.

    The loss is convex in the coefficients of p / s^2 and in 1 / s^2, so Newton's method with
    backtracking finds the global minimum from anywhere. Where the minimum lies at 1 / s^2 <= 0, as
    that of learned-sigma GAI does for residuals that vary more than the prior, sigma stops at the
    bound of the package's learned noise.

    Args:
        evaluate: Derivatives per label; those of seeds that are not active may be anything finite.
        features: (S, n, F).
        counts: Labels that count, (S,).
        start: Coefficients of p, (S, F, D).
        noise_sigma: (Initial) noise scale, (S,).
        learned: Whether the noise scale is a parameter.
    """
    seeds = len(start)

    def state(parameters: Tensor, active: Tensor) -> _State:
        natural = parameters[:, :-1].reshape(start.shape)
        found = evaluate(natural, parameters[:, -1], active)
        return _State(parameters, *_means(found, features, counts, start.shape[-1]))

    precision = noise_sigma[:, None] ** -2
    active = torch.ones(seeds, dtype=torch.bool)
    now = state(torch.cat([start.reshape(seeds, -1) * precision, precision], 1), active)
    length = start.new_ones(seeds)
    iteration = 0
    while iteration < MAX_ITERATIONS:
        iteration += 1
        at_bound = (now.parameters[:, -1] <= LEAST_PRECISION) & (now.gradient[:, -1] > 0)
        step = _newton_step(now, ~at_bound & learned)
        decrease = -(now.gradient * step).sum(1)
        last = active & (decrease < SMALLEST_DECREASE)
        active = active & ~last
        reach = torch.minimum(length, _longest(now.parameters[:, -1], step[:, -1]))
        parameters = now.parameters + reach[:, None] * step
        parameters[:, -1].clamp_(min=LEAST_PRECISION)
        now = now._replace(parameters=torch.where(last[:, None], parameters, now.parameters))
        if not active.any():
            break
        ahead = state(torch.where(active[:, None], parameters, now.parameters), active)
        enough = now.value - ARMIJO * reach * decrease + ROUNDING * now.value.abs()
        accepted = active & (ahead.value <= enough)
        now = ahead.where(accepted, now)
        length = torch.where(accepted, 1.0, BACKTRACK * reach)
    sigma = now.parameters[:, -1].rsqrt()
    natural = now.parameters[:, :-1].reshape(start.shape)
    return Optimum(natural * sigma[:, None, None] ** 2, sigma, iteration, ~active, at_bound)


def _newton_step(now: _State, free: Tensor) -> Tensor:
    """Return the Newton step (S, F D + 1); 1 / s^2 moves only for the seeds where it is free."""
    gradient, hessian = now.gradient.clone(), now.hessian.clone()
    gradient[~free, -1] = 0
    hessian[~free, -1], hessian[~free, :, -1] = 0, 0
    hessian[~free, -1, -1] = 1
    # Rounding may leave the flattest direction with a negative curvature.
    curvatures, axes = torch.linalg.eigh(hessian)
    floor = 1e-12 * curvatures[:, -1:]
    along = (axes.mT @ gradient[..., None])[..., 0] / curvatures.clamp(min=floor)
    step: Tensor = -(axes @ along[..., None])[..., 0]
    return step


def _longest(precision: Tensor, step: Tensor) -> Tensor:
    """Return the largest part of a step that does not shrink 1 / s^2 too much, (S,)."""
    furthest = (1 - LARGEST_SHRINKING) * precision
    share = furthest / (-step).clamp(min=1e-300)
    return share.clamp(max=1.0)


def _means(
    found: Derivatives, features: Tensor, counts: Tensor, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean loss, and its gradient and Hessian in the parameters."""
    seeds, _, rows = features.shape
    size = rows * dim
    gradient = features.new_zeros(seeds, size + 1)
    hessian = features.new_zeros(seeds, size + 1, size + 1)
    by_label, curvature = found.gradient, found.hessian
    gradient[:, :size] = (features.mT @ by_label[..., :dim]).reshape(seeds, size)
    pairs = (features[..., :, None] * features[..., None, :]).flatten(2)
    block = pairs.mT @ curvature[..., :dim, :dim].flatten(2)  # (S, F F, D D)
    block = block.reshape(seeds, rows, rows, dim, dim).transpose(2, 3)
    hessian[:, :size, :size] = block.reshape(seeds, size, size)
    if by_label.shape[-1] > dim:
        gradient[:, size] = by_label[..., dim].sum(1)
        cross = (features.mT @ curvature[..., :dim, dim]).reshape(seeds, size)
        hessian[:, :size, size] = hessian[:, size, :size] = cross
        hessian[:, size, size] = curvature[..., dim, dim].sum(1)
    total = counts.to(features)
    return (
        found.value.sum(1) / total,
        gradient / total[:, None],
        hessian / total[:, None, None],
    )
