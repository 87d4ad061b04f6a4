"""Rotations as SPIN writes them: axis-angle and the interleaved six numbers, into matrices."""

import roma
from torch import Tensor

JOINTS = 24


def rotmats_of(pose: Tensor) -> Tensor:
    """Return rotation matrices (B, 24, 3, 3) of axis-angle poses (B, 72) in radians.

    Example:
        >>> import torch
        >>> pose = torch.zeros(1, 72)
        >>> pose[0, 0] = torch.pi
        >>> rotmats_of(pose)[0, 0].round().diagonal().tolist()
        [1.0, -1.0, -1.0]
    """
    rotmats: Tensor = roma.rotvec_to_rotmat(pose.reshape(len(pose), JOINTS, 3))
    return rotmats


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3) whose first two columns (..., 6) stand for.

    The numbers are interleaved, [r11, r12, r21, r22, r31, r32], so that the identity is
    [1, 0, 0, 1, 0, 0]; the two columns need be neither orthogonal nor of unit length
    (Gram-Schmidt, the first keeps its direction).

    Source: Zhou et al., CVPR 2019; the order is that of SPIN's `utils/geometry.py`.

    Example:
        >>> import torch
        >>> rot6d_to_rotmat(torch.tensor([2.0, 0, 0, 3, 0, 0])).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    # 1e-12 is what SPIN's normalisation keeps a vanishing column from dividing by
    rotmat: Tensor = roma.special_gramschmidt(rot6d.reshape(*rot6d.shape[:-1], 3, 2), epsilon=1e-12)
    return rotmat
