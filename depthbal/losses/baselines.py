"""Losses that do not balance, with the signature of those that do."""

from torch import Tensor

from depthbal.losses.base import RegressionLoss
from depthbal.losses.reduction import Reduction


class MSELoss(RegressionLoss):
    """Mean squared error over the entries that count.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, used only to clamp predictions.

    Example:
        >>> import torch
        >>> MSELoss()(torch.tensor([1.0, 9.0]), torch.zeros(2), torch.tensor([True, False]))
        tensor(1.)
    """

    def __init__(
        self, *, reduction: Reduction = "mean", label_range: tuple[float, float] | None = None
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction)
        self.init_args = {"reduction": reduction, "label_range": label_range}

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return (p - y)^2 of every entry."""
        return (preds - target) ** 2
