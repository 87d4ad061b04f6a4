"""Rotations as SPIN writes them: axis-angle, matrices and the interleaved six numbers."""

import roma
from torch import Tensor


def axis_angle_to_rotmat(axis_angle: Tensor) -> Tensor:
    """Return rotation matrices (..., 3, 3) of axis-angle vectors (..., 3) in radians.

    Example:
        >>> import torch
        >>> axis_angle_to_rotmat(torch.tensor([torch.pi, 0.0, 0.0])).round().diagonal().tolist()
        [1.0, -1.0, -1.0]
    """
    rotmat: Tensor = roma.rotvec_to_rotmat(axis_angle)
    return rotmat


def rotmat_to_axis_angle(rotmat: Tensor) -> Tensor:
    """Return axis-angle vectors (..., 3), no longer than pi radians, of matrices (..., 3, 3)."""
    axis_angle: Tensor = roma.rotmat_to_rotvec(rotmat)
    return axis_angle


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


def rotmat_to_rot6d(rotmat: Tensor) -> Tensor:
    """Return the interleaved first two columns (..., 6) of matrices (..., 3, 3).

    Example:
        >>> import torch
        >>> rotmat_to_rot6d(torch.eye(3)).tolist()
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """
    return rotmat[..., :2].flatten(-2)


def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle (...), in [0, pi] radians, of the rotation between matrices (..., 3, 3).

    The shapes broadcast. Computed from |first - second|, which is exact where the angle is small;
    near pi the angle is known to the square root of the precision (3e-4 in float32).

    Example:
        >>> import torch
        >>> turned = axis_angle_to_rotmat(torch.tensor([0.0, 0.5, 0.0]))
        >>> round(geodesic_distance(turned, torch.eye(3)).item(), 6)
        0.5
    """
    angle: Tensor = roma.rotmat_geodesic_distance(first, second)
    return angle
