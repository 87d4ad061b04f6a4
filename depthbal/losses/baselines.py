"""Losses that do not balance, with the signature of those that do."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.base import RegressionLoss, require_one_of
from depthbal.losses.reduction import Mask, hide, mean_over_ranks

ErrorKind = Literal["squared", "absolute"]
Activation = Literal["sigmoid", "tanh"]


class MSELoss(RegressionLoss):
    """Mean squared error over the entries that count; arguments are those of ``RegressionLoss``.

    Example:
        >>> MSELoss()(torch.tensor([1.0, 9.0]), torch.zeros(2), torch.tensor([True, False]))
        tensor(1.)
    """

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return |p - y|^2 of every label."""
        return self.per_label((preds - target) ** 2)


class L1Loss(RegressionLoss):
    """Mean absolute error over the entries that count; arguments are those of ``RegressionLoss``.

    Example:
        >>> L1Loss()(torch.tensor([-3.0, 9.0]), torch.zeros(2), torch.tensor([True, False]))
        tensor(3.)
    """

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return |p - y| of every label."""
        return self.per_label((preds - target).abs())


class HuberLoss(RegressionLoss):
    """Huber's loss (1964): e^2 / 2 where e = |p - y| <= delta, else delta (e - delta / 2).

    Args:
        delta: Error at which the loss becomes linear, > 0, label units.
        options: Those of ``RegressionLoss``.

    Example:
        >>> HuberLoss(1.0, reduction="none")(torch.tensor([0.5, -3.0]), torch.zeros(2))
        tensor([0.1250, 2.5000])
    """

    def __init__(self, delta: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        if not delta > 0:
            raise ValueError(f"expected a positive delta in label units, got {delta}")
        self.delta = delta
        self.init_args["delta"] = delta

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return Huber's loss of every label."""
        entries = functional.huber_loss(preds, target, reduction="none", delta=self.delta)
        return self.per_label(entries)


class FocalRLoss(RegressionLoss):
    """Focal-R: the regression form of the focal loss, which plays down what is already easy.

        error * f(e)^gamma,  e = |p - y|,  f = 2 sigmoid(beta e) - 1  or  tanh(beta e)

    The factor goes from 0 for a perfect prediction to 1 for a hopeless one, and gradients flow
    through it, as published. It knows nothing of label frequencies.

    Args:
        error: ``"absolute"`` for |p - y|, ``"squared"`` for (p - y)^2.
        activation: ``"sigmoid"`` or ``"tanh"``; the sigmoid at beta is tanh at beta / 2.
        beta: Steepness > 0 in 1 / label units.
        gamma: Exponent >= 0; 0 leaves the plain error.
        options: ``reduction`` and ``label_range`` of ``RegressionLoss``.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021.

    Example:
        >>> loss = FocalRLoss(error="squared", activation="tanh", reduction="none")
        >>> loss(torch.tensor([0.0, 5.0]), torch.zeros(2))  # 25 tanh(1)
        tensor([ 0.0000, 19.0399])
    """

    def __init__(
        self,
        *,
        error: ErrorKind = "absolute",
        activation: Activation = "sigmoid",
        beta: float = 0.2,
        gamma: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(event_dim=0, **options)
        require_one_of("error", error, ("squared", "absolute"))
        require_one_of("activation", activation, ("sigmoid", "tanh"))
        if not (beta > 0 and gamma >= 0):
            raise ValueError(f"expected beta > 0 and gamma >= 0, got {beta} and {gamma}")
        self.error, self.activation, self.beta, self.gamma = error, activation, beta, gamma
        self.init_args |= {"error": error, "activation": activation, "beta": beta, "gamma": gamma}

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the focused error of every entry."""
        distance = (preds - target).abs()
        error = distance if self.error == "absolute" else distance**2
        # 2 sigmoid(x) - 1 = tanh(x / 2), which keeps its digits for small errors.
        steepness = self.beta / 2 if self.activation == "sigmoid" else self.beta
        focus = torch.tanh(steepness * distance)
        # The slope of focus^gamma is infinite at 0 for gamma < 1; the error there is 0 anyway.
        focus = torch.where(focus > 0, focus, 1)
        return error * focus**self.gamma


class SILogLoss(RegressionLoss):
    """Scale-invariant log error, pooled over all entries of the batch that count.

        mean(d^2) - lambda mean(d)^2,  d = log p - log y

    With m = mean(d), over all ranks, it is the mean of (1 - lambda) d^2 + lambda (d - m)^2. Below
    ``floor`` the logarithm continues along its tangent, so that zero or negative predictions give a
    finite loss and a gradient that leads back.

    Args:
        scale_invariance: Lambda in [0, 1]; 0 is the squared log error, 1 ignores the scale.
        floor: Label below which the logarithm of a prediction becomes linear, > 0, label units.
        options: ``reduction`` and ``label_range`` of ``RegressionLoss``.

    Raises:
        ValueError: Targets that count and are not positive (on the CPU; elsewhere, where reading
            them would stall every step, the loss becomes infinite or NaN).

    Source: Eigen et al., Depth Map Prediction from a Single Image, NeurIPS 2014, equation 4 with
    lambda = 0.5, pooled over the batch instead of per image.

    Example:
        >>> preds, target = torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0])
        >>> SILogLoss(scale_invariance=1.0)(preds, target)  # twice too far everywhere
        tensor(0.)
    """

    def __init__(
        self, scale_invariance: float = 0.5, *, floor: float = 0.01, **options: Any
    ) -> None:
        super().__init__(event_dim=0, **options)
        if not (0 <= scale_invariance <= 1 and floor > 0):
            raise ValueError(
                "expected scale_invariance in [0, 1] and a positive floor in label units, got "
                f"{scale_invariance} and {floor}"
            )
        self.scale_invariance, self.floor = scale_invariance, floor
        self.init_args |= {"scale_invariance": scale_invariance, "floor": floor}

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return (1 - lambda) d^2 + lambda (d - m)^2 of every entry."""
        difference = log_difference(preds, target, mask, self.floor)
        centre = mean_over_ranks(difference, mask, difference)
        weight = self.scale_invariance
        return (1 - weight) * difference**2 + weight * (difference - centre) ** 2


def log_difference(preds: Tensor, target: Tensor, mask: Tensor | None, floor: float) -> Tensor:
    """Return log p - log y, 0 where the mask hides; below the floor the tangent of log p."""
    if mask is not None:
        preds, target = torch.where(mask, preds, 1), torch.where(mask, target, 1)
    if target.device.type == "cpu" and (target <= 0).any():
        raise ValueError(
            f"{int((target <= 0).sum())} targets that count are not positive and have no "
            "logarithm: mask them out"
        )
    return log_above(preds, floor) - target.log()


def log_above(preds: Tensor, floor: float) -> Tensor:
    """Return log p, below the floor its tangent."""
    tangent = math.log(floor) + preds / floor - 1
    return torch.where(preds >= floor, preds.clamp(min=floor).log(), tangent)


class GradientLoss(RegressionLoss):
    """Multi-scale gradient matching: the error's differences, so that edges stay where they are.

        mean over strides s of mean |R(a) - R(b)|,  R = log p - log y  or  p - y

    over pixels a and b that lie s apart in a row or a column. A pair counts where both pixels do;
    strides without such a pair add 0. It is blind to a constant factor (or offset): give it a small
    weight beside another loss in ``CombinedLoss``.

    Args:
        strides: Distances in pixels.
        space: ``"log"``, for positive labels, or ``"label"``.
        floor: Label below which the logarithm of a prediction becomes linear, as in ``SILogLoss``.
        options: ``reduction`` (to be ``"mean"``; entries of ``"none"`` average to the loss) and
            ``label_range`` of ``RegressionLoss``.

    Shape:
        maps (..., H, W)

    Raises:
        ValueError: No maps, no positive stride, targets that count and are not positive.

    Source: Li and Snavely, MegaDepth, CVPR 2018, with all pairs s apart in place of a subsampled
    map, which has next to none where labels are sparse.

    Example:
        >>> target = torch.tensor([[1.0, 1.0, 4.0, 4.0]])
        >>> loss = GradientLoss((1,), space="label")
        >>> loss(target + 3, target), loss(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), target)
        (tensor(0.), tensor(1.3333))
    """

    def __init__(
        self,
        strides: Sequence[int] = (1, 2, 4, 8),
        *,
        space: Literal["log", "label"] = "log",
        floor: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(event_dim=0, **options)
        require_one_of("space", space, ("log", "label"))
        if not strides or min(strides) < 1 or not floor > 0:
            raise ValueError(
                f"expected strides of 1 or more and a positive floor, got {strides} and {floor}"
            )
        self.strides, self.space, self.floor = tuple(strides), space, floor
        self.init_args |= {"strides": list(strides), "space": space, "floor": floor}

    def forward(
        self, preds: Tensor, target: Tensor, mask: Mask = None, beyond: Mask = None
    ) -> Tensor:
        """Return the loss; labels ``beyond`` the range, whose differences nobody knows, are out."""
        if beyond is not None:
            mask = ~beyond if mask is None else mask & ~beyond
        return super().forward(preds, target, mask)

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return numbers per pixel whose mean over those that count is the loss."""
        if preds.ndim < 2:
            raise ValueError(f"expected maps (..., H, W), got {tuple(preds.shape)}")
        residual = preds - target
        if self.space == "log":
            residual = log_difference(preds, target, mask, self.floor)
        counts = torch.ones_like(residual, dtype=torch.bool) if mask is None else mask
        found = torch.zeros_like(residual)
        for stride in self.strides:
            jumps, pairs = torch.zeros_like(residual), torch.zeros_like(residual)
            for axis in (-2, -1):
                both = counts & counts.roll(-stride, axis)
                size = residual.shape[axis]
                both.narrow(axis, max(0, size - stride), min(stride, size)).fill_(False)
                jumps = jumps + hide((residual - residual.roll(-stride, axis)).abs(), both)
                pairs += both
            share = mean_over_ranks(pairs, mask, residual)  # pairs per pixel that counts
            found = found + jumps / (len(self.strides) * share.clamp(min=1e-12))
        return found
