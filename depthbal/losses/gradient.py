"""Gradient matching of maps, a term beside a loss of single pixels."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from depthbal.losses.base import RegressionLoss, require_one_of
from depthbal.losses.baselines import log_difference
from depthbal.losses.reduction import hide, mean_over_ranks


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
        self,
        preds: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        beyond: Tensor | None = None,
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
