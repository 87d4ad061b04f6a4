"""Focal-R: errors weighted by a growing, saturating function of themselves."""

from typing import Literal

import torch
from torch import Tensor

from depthbal.losses.base import RegressionLoss
from depthbal.losses.reduction import Reduction

ErrorKind = Literal["squared", "absolute"]
Activation = Literal["sigmoid", "tanh"]


class FocalRLoss(RegressionLoss):
    """Focal-R: the regression form of the focal loss, which plays down what is already easy.

        error * f(e)^gamma,  e = |p - y|,  f = 2 sigmoid(beta e) - 1  or  tanh(beta e)

    The factor goes from 0 for a perfect prediction to 1 for a hopeless one. It knows nothing of
    label frequencies. Gradients flow through the factor, as published.

    Args:
        error: ``"absolute"`` for |p - y|, ``"squared"`` for (p - y)^2.
        activation: ``"sigmoid"`` or ``"tanh"``; the sigmoid at beta is tanh at beta / 2.
        beta: Steepness > 0 in 1 / label units.
        gamma: Exponent >= 0; 0 leaves the plain error.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, used only to clamp predictions.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021 (Focal-R).

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
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction)
        if error not in ("squared", "absolute"):
            raise ValueError(f"expected error squared or absolute, got {error!r}")
        if activation not in ("sigmoid", "tanh"):
            raise ValueError(f"expected activation sigmoid or tanh, got {activation!r}")
        if not (beta > 0 and gamma >= 0):
            raise ValueError(f"expected beta > 0 and gamma >= 0, got {beta} and {gamma}")
        self.error, self.activation, self.beta, self.gamma = error, activation, beta, gamma
        self.init_args = {
            "error": error,
            "activation": activation,
            "beta": beta,
            "gamma": gamma,
            "reduction": reduction,
            "label_range": label_range,
        }

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the focused error of every entry."""
        distance = (preds - target).abs()
        error = distance if self.error == "absolute" else distance**2
        # 2 sigmoid(x) - 1 = tanh(x / 2), which keeps its digits for small errors.
        steepness = self.beta / 2 if self.activation == "sigmoid" else self.beta
        focus = torch.tanh(steepness * distance)
        # The slope of focus^gamma is infinite at 0 for gamma < 1; the error there is 0 anyway.
        focus = torch.where(focus > 0, focus, torch.ones_like(focus))
        return error * focus**self.gamma
