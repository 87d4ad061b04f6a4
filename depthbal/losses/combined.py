"""A weighted sum of losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from depthbal.losses.base import RegressionLoss
from depthbal.losses.reduction import Mask
from depthbal.priors import GaussianMixture, Histogram


class CombinedLoss(RegressionLoss):
    """A weighted sum of losses of the same predictions.

        L = sum_i factor_i L_i

    Prior, noise scale, read-out and interval are those of the first part that balances, without
    one those of the first part.

    Args:
        losses: Losses of this package, in configs class paths with their arguments; no BinsLoss,
            whose predictions are logits.
        factors: One per loss; by default 1.

    Raises:
        ValueError: No losses, as many factors as there are not, or a loss that is not of labels.

    Example:
        >>> from depthbal.losses import GradientLoss, MSELoss
        >>> loss = CombinedLoss([MSELoss(), GradientLoss((1,), space="label")], [1.0, 0.5])
        >>> loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(1.)
    """

    def __init__(
        self, losses: list[RegressionLoss], factors: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        factors = [1.0] * len(losses) if factors is None else list(factors)
        parts = [made(loss) for loss in losses]
        if not parts or len(factors) != len(parts):
            raise ValueError(f"expected a factor per loss, got {len(factors)} for {len(parts)}")
        if any(part.n_parts > 1 for part in parts):
            raise ValueError("BinsLoss is of logits and cannot be added to losses of labels")
        self.parts, self.factors = nn.ModuleList(parts), factors
        self._main = next((n for n, part in enumerate(parts) if part.balances), 0)
        self.balances, self.label_range = self.main.balances, self.main.label_range
        self.init_args = {"losses": [described(part) for part in parts], "factors": factors}

    def forward(
        self, preds: Tensor, target: Tensor, mask: Mask = None, beyond: Mask = None
    ) -> Tensor:
        """Return the weighted sum; see ``RegressionLoss.forward``."""
        terms = zip(self.factors, self.parts, strict=True)
        values = [factor * part(preds, target, mask, beyond) for factor, part in terms]
        return torch.stack(values).sum(0)

    elementwise = forward

    # ---- of the part that balances ----

    @property
    def main(self) -> RegressionLoss:
        """The first part that balances, without one the first part."""
        return self.parts[self._main]  # type: ignore[return-value]

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Give the prior to every part."""
        for part in self.parts:
            part.set_prior(prior)  # type: ignore[operator]

    def set_beyond(self, prior: Histogram) -> None:
        """Give every part how common labels beyond the range are."""
        for part in self.parts:
            part.set_beyond(prior)  # type: ignore[operator]

    def end_of_range(self, beyond: Tensor, target: Tensor) -> float:
        """Return the label beyond which labels are known to lie, for every part."""
        ends = [part.end_of_range(beyond, target) for part in self.parts]  # type: ignore[operator]
        return float(ends[self._main])

    def set_label_range(self, label_range: tuple[float, float]) -> None:
        """Give the label range to every part."""
        for part in self.parts:
            part.set_label_range(label_range)  # type: ignore[operator]
        self.label_range = self.main.label_range

    def readout(self, preds: Tensor) -> Tensor:
        """Return the read-out of the part that balances."""
        return self.main.readout(preds)

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return its interval, if it has one."""
        return self.main.interval(preds)

    @property
    def noise(self) -> Any:
        """Its noise module, None without one."""
        return getattr(self.main, "noise", None)


def described(loss: RegressionLoss) -> dict[str, Any]:
    """Return the description of a loss of this package, JSON-able."""
    return {"class_path": f"depthbal.losses.{type(loss).__name__}", "init_args": loss.init_args}


def made(loss: RegressionLoss | Mapping[str, Any]) -> RegressionLoss:
    """Return a loss of this package, made from its description where that is given."""
    import depthbal.losses  # which imports this file

    if isinstance(loss, RegressionLoss):
        return loss
    cls = getattr(depthbal.losses, str(loss["class_path"]).rpartition(".")[2])
    return cls(**loss["init_args"])  # type: ignore[no-any-return]
