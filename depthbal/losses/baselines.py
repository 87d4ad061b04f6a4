"""Losses that do not balance, with the signature of those that do: the plain errors."""

from torch import Tensor
from torch.nn import functional

from depthbal.losses.base import RegressionLoss
from depthbal.losses.reduction import Reduction


class MSELoss(RegressionLoss):
    """Mean squared error over the entries that count.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, used only to clamp predictions.
        event_dim: 1 sums over the coordinates of the vectors along the last axis.

    Example:
        >>> import torch
        >>> MSELoss()(torch.tensor([1.0, 9.0]), torch.zeros(2), torch.tensor([True, False]))
        tensor(1.)
    """

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        event_dim: int = 0,
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction, event_dim=event_dim)
        self.init_args = {
            "reduction": reduction,
            "label_range": label_range,
            "event_dim": event_dim,
        }

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return |p - y|^2 of every label."""
        return self.per_label((preds - target) ** 2)


class L1Loss(RegressionLoss):
    """Mean absolute error over the entries that count.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, used only to clamp predictions.
        event_dim: 1 sums over the coordinates of the vectors along the last axis.

    Example:
        >>> import torch
        >>> L1Loss()(torch.tensor([-3.0, 9.0]), torch.zeros(2), torch.tensor([True, False]))
        tensor(3.)
    """

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        event_dim: int = 0,
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction, event_dim=event_dim)
        self.init_args = {
            "reduction": reduction,
            "label_range": label_range,
            "event_dim": event_dim,
        }

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return |p - y| of every label."""
        return self.per_label((preds - target).abs())


class HuberLoss(RegressionLoss):
    """Huber's loss: squared for errors up to ``delta``, linear beyond.

        e^2 / 2 where e = |p - y| <= delta, else delta (e - delta / 2)

    Args:
        delta: Error at which the loss becomes linear, > 0, label units.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, used only to clamp predictions.
        event_dim: 1 sums over the coordinates of the vectors along the last axis.

    Source: Huber, Robust Estimation of a Location Parameter, 1964.

    Example:
        >>> import torch
        >>> HuberLoss(1.0, reduction="none")(torch.tensor([0.5, -3.0]), torch.zeros(2))
        tensor([0.1250, 2.5000])
    """

    def __init__(
        self,
        delta: float = 1.0,
        *,
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        event_dim: int = 0,
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction, event_dim=event_dim)
        if not delta > 0:
            raise ValueError(f"expected a positive delta in label units, got {delta}")
        self.delta = delta
        self.init_args = {
            "delta": delta,
            "reduction": reduction,
            "label_range": label_range,
            "event_dim": event_dim,
        }

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return Huber's loss of every label."""
        entries = functional.huber_loss(preds, target, reduction="none", delta=self.delta)
        return self.per_label(entries)
