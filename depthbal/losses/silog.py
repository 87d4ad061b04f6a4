"""The scale-invariant logarithmic loss of depth estimation."""

import math

import torch
from torch import Tensor

from depthbal.losses.base import RegressionLoss
from depthbal.losses.reduction import Reduction, mean_over_ranks


class SILogLoss(RegressionLoss):
    """Scale-invariant log error, pooled over all entries of the batch that count.

        mean(d^2) - lambda mean(d)^2,  d = log p - log y

    It is the mean of (1 - lambda) d^2 + lambda (d - m)^2 with m = mean(d), which is how it is
    computed: every term is non-negative, and with m held fixed the gradient is the exact one. Under
    torch.distributed m is the mean over all ranks while gradients are recorded.

    Below ``floor`` the logarithm continues along its tangent, so that zero or negative predictions
    of a linear output give a finite loss and a gradient that leads back, which a clamp would not.

    Args:
        scale_invariance: Lambda in [0, 1]; 0 is the squared log error, 1 ignores the scale.
        floor: Label below which the logarithm of a prediction becomes linear, > 0, label units.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, used only to clamp predictions.

    Raises:
        ValueError: Targets that count and are not positive (on the CPU; elsewhere, where reading
            them would stall every step, the loss becomes infinite or NaN).

    Source: Eigen et al., Depth Map Prediction from a Single Image, NeurIPS 2014, equation 4 with
    lambda = 0.5, pooled over the batch instead of per image.

    Example:
        >>> preds, target = torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0])
        >>> SILogLoss(scale_invariance=1.0)(preds, target)  # twice too far everywhere
        tensor(0.)
        >>> SILogLoss(scale_invariance=0.0)(preds, target)  # log(2)^2
        tensor(0.4805)
    """

    def __init__(
        self,
        scale_invariance: float = 0.5,
        *,
        floor: float = 0.01,
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction)
        if not 0 <= scale_invariance <= 1:
            raise ValueError(f"expected scale_invariance in [0, 1], got {scale_invariance}")
        if not floor > 0:
            raise ValueError(f"expected a positive floor in label units, got {floor}")
        self.scale_invariance, self.floor = scale_invariance, floor
        self.init_args = {
            "scale_invariance": scale_invariance,
            "floor": floor,
            "reduction": reduction,
            "label_range": label_range,
        }

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return (1 - lambda) d^2 + lambda (d - m)^2 of every entry."""
        if mask is not None:
            preds = torch.where(mask, preds, torch.ones_like(preds))
            target = torch.where(mask, target, torch.ones_like(target))
        if target.device.type == "cpu" and (target <= 0).any():
            raise ValueError(
                f"{int((target <= 0).sum())} targets that count are not positive and have no "
                "logarithm: mask them out"
            )
        difference = _log_with_tangent(preds, self.floor) - target.log()
        centre = mean_over_ranks(difference, mask, difference)
        weight = self.scale_invariance
        return (1 - weight) * difference**2 + weight * (difference - centre) ** 2


def _log_with_tangent(values: Tensor, floor: float) -> Tensor:
    """Return log v, continued below the floor by log floor + v / floor - 1."""
    tangent = math.log(floor) + values / floor - 1
    return torch.where(values >= floor, values.clamp(min=floor).log(), tangent)
