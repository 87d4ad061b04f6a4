"""First and second derivatives per label of any loss of the package."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from depthbal.losses import NoiseModule, RegressionLoss
from depthbal.synthetic.data import SyntheticData

# Step of the difference quotients of exact gradients, in units of the noise scale.
STEP = 1e-5


class GivenNoise(NoiseModule):
    """A noise scale that the solver sets before each use.

    Example:
        >>> noise = GivenNoise(1.5)
        >>> noise.sigma = torch.tensor(2.0)
        >>> noise(torch.zeros(3))
        tensor(2.)
    """

    depends_on_preds: ClassVar[bool] = False

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = torch.tensor(sigma, dtype=torch.float64)

    def forward(self, preds: Tensor) -> Tensor:
        """Return the scale that was set last."""
        return self.sigma


class Part(NamedTuple):
    """What one call of a loss sees: a seed's labels, or one batch of them.

    loss: with ``reduction="none"``; seed: index into the data's seeds; rows: of its labels.
    """

    loss: RegressionLoss
    seed: int
    rows: slice


class Derivatives(NamedTuple):
    """Per label of S seeds: loss (S, n), gradient (S, n, P), Hessian (S, n, P, P)."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor


def derivatives(
    parts: Sequence[Part],
    data: SyntheticData,
    natural: Tensor,
    precision: Tensor,
    learned: bool,
    weights: Tensor | None = None,
) -> Derivatives:
    """Return every label's loss and its derivatives in natural parameters.

    The balanced posterior p_train(y) N(y; p, s^2 I) / E(p) is an exponential family in
    (p / s^2, 1 / s^2), so its negative logarithm, the loss, is convex in them. Gradients are the
    closed forms of the losses; their difference quotients are the Hessian.

    Args:
        parts: Which loss sees which labels; labels of no part are left at 0.
        data: Training data of S seeds.
        natural: p / s^2 per label, (S, n, D).
        precision: 1 / s^2 per seed, (S,).
        learned: Whether 1 / s^2 is a parameter, the last of P = D + 1; else P = D.
        weights: Factors of the labels' losses, (S, n).
    """
    dim = natural.shape[-1]
    size = dim + learned
    value = natural.new_zeros(natural.shape[:2])
    gradient = natural.new_zeros(*value.shape, size)
    hessian = natural.new_zeros(*value.shape, size, size)
    for part in parts:
        where = part.seed, part.rows
        scale = float(precision[part.seed])
        steps = STEP * torch.tensor([scale**0.5] * dim + [scale] * learned)
        points = _shifted(natural[where], scale, steps)
        losses, slopes = _slopes(part.loss, points, data.labels[where], data.counted[where])
        slopes = slopes[..., :size]
        curvature = ((slopes[1:] - slopes[0]) / steps.to(slopes)[:, None, None]).movedim(0, 1)
        value[where], gradient[where] = losses[0], slopes[0]
        hessian[where] = (curvature + curvature.mT) / 2
    if weights is None:
        return Derivatives(value, gradient, hessian)
    factor = weights[..., None]
    return Derivatives(value * weights, gradient * factor, hessian * factor[..., None])


def _shifted(natural: Tensor, precision: float, steps: Tensor) -> Tensor:
    """Return the points (n, D + 1) of labels, and moved along each of the first P axes."""
    point = torch.nn.functional.pad(natural, (0, 1), value=precision)
    shifts = torch.zeros(len(steps) + 1, 1, point.shape[-1]).to(point)
    for axis, step in enumerate(steps):
        shifts[axis + 1, 0, axis] = step
    return point + shifts


def _slopes(
    loss: RegressionLoss, points: Tensor, target: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss (k, n) and its gradient (k, n, D + 1) at points (k, n, D + 1).

    Stacking the same labels k times leaves the prior of a batch as it is.
    """
    points = points.detach().requires_grad_()
    precision = points[..., -1:]
    preds = points[..., :-1] / precision
    noise = getattr(loss, "noise", None)
    if isinstance(noise, GivenNoise):
        noise.sigma = precision[..., 0].rsqrt()
    targets = target.expand(len(points), *target.shape)
    if not loss.event_dim:
        preds, targets = preds[..., 0], targets[..., 0]
    losses = loss(preds, targets, mask.expand(len(points), *mask.shape))
    (slopes,) = torch.autograd.grad(losses.sum(), points)
    return losses.detach(), slopes
