"""One call for our losses and anybody else's."""

import inspect
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from depthbal.errors import ConfigError
from depthbal.losses import RegressionLoss


def masked_loss(criterion: nn.Module, preds: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the loss over the pixels that count.

    Our losses, and any module whose ``forward`` has an argument ``mask``, get it. Other modules,
    such as ``torch.nn.L1Loss``, get the valid pixels as two vectors; without a valid pixel their
    loss is 0 with a gradient path.

    Args:
        criterion: Module from predictions and targets to a scalar.
        preds: Predictions in metres, (B, 1, h, w).
        target: Depth in metres, the same shape.
        mask: bool, the same shape; True counts.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[[0.0, 2.0]]]])
        >>> masked_loss(nn.L1Loss(), torch.ones(1, 1, 1, 2), target, target > 0).item()
        1.0
    """
    takes_mask = "mask" in inspect.signature(criterion.forward).parameters
    if isinstance(criterion, RegressionLoss) or takes_mask:
        loss: Tensor = criterion(preds, target, mask)
        return loss
    counted = preds[mask]
    if not len(counted):
        return preds.sum() * 0.0
    loss = criterion(counted.float(), target[mask])
    return loss


def match_size(preds: Tensor, target: Tensor, resize: Literal["target"] | None) -> Tensor:
    """Return predictions of the target's size.

    Args:
        preds: (B, 1, h, w).
        target: (B, 1, H, W).
        resize: ``"target"`` interpolates predictions of another size bilinearly.

    Raises:
        ConfigError: The sizes differ and ``resize`` is None, or the batches or channels differ.
    """
    if preds.shape == target.shape:
        return preds
    if resize == "target" and preds.shape[:2] == target.shape[:2] and preds.ndim == 4:
        size = target.shape[-2:]
        return F.interpolate(preds, size=size, mode="bilinear", align_corners=True)
    raise ConfigError(
        f"preds {tuple(preds.shape)} and target {tuple(target.shape)} differ; set "
        "--model.resize target, or give --data.depth_size the size of the predictions"
    )
