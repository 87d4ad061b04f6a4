"""Errors of recovered bodies, one per sample, in millimetres."""

import roma
import torch
from torch import Tensor

MILLIMETRES = 1000.0


def mpjpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean per-joint position error (B,) in mm: mean_j |preds_j - target_j|.

    Args:
        preds: (B, J, 3) joints relative to the pelvis, metres (`evaluation_joints`).
        target: the same.

    Example:
        >>> mpjpe(torch.zeros(1, 14, 3), torch.full((1, 14, 3), 0.3)).round(decimals=2)
        tensor([519.6200])
    """
    if preds.shape != target.shape:
        raise ValueError(
            f"expected preds and target (B, J, 3), got {tuple(preds.shape)} and "
            f"{tuple(target.shape)}"
        )
    distances: Tensor = torch.linalg.vector_norm(preds - target, dim=-1)
    return MILLIMETRES * distances.mean(dim=-1)


def pa_mpjpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean per-joint position error (B,) in mm after aligning each sample's prediction.

    The alignment is the similarity transform (scale, rotation without reflection, shift) that
    minimises the squared distances, solved in float64. A prediction whose joints all coincide
    has no scale: it is moved onto the target's centre.

    Source: Umeyama, PAMI 1991; SPIN's `utils/pose_utils.py`.

    Args:
        preds: (B, J, 3) metres.
        target: the same.

    Example:
        >>> target = torch.randn(2, 14, 3, generator=torch.Generator().manual_seed(0))
        >>> pa_mpjpe(3 * target + 1, target).round(decimals=3)
        tensor([0., 0.], dtype=torch.float64)
    """
    preds, target = preds.double(), target.double()
    rotation, _, scale = roma.rigid_points_registration(preds, target, compute_scaling=True)
    centred = preds - preds.mean(dim=1, keepdim=True)
    # 0 / 0 where all joints coincide; any scale gives the same points
    turned = scale.nan_to_num()[:, None, None] * centred @ rotation.mT
    return mpjpe(turned + target.mean(dim=1, keepdim=True), target)


def mpvpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean per-vertex position error (B,) in mm, without any alignment.

    Args:
        preds: (B, V, 3) vertices as the body model gives them, metres.
        target: the same.

    Source: MMHuman3D's `pve`, which is not centred on the pelvis either.
    """
    return mpjpe(preds, target)
