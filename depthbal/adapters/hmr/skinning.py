"""Linear blend skinning: where a body's vertices go when its joints turn."""

from collections.abc import Sequence

import torch
from torch import Tensor


def world_transforms(
    rotmats: Tensor, joints: Tensor, parents: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Chain each joint's rotation about itself down a kinematic tree.

    R_k = R_parent(k) rotmat_k, and joint k moves to t_k = t_parent(k) + R_parent(k) (j_k -
    j_parent(k)); a point x fastened to joint k goes to R_k (x - j_k) + t_k.

    Args:
        rotmats: (B, J, 3, 3), relative to the parent.
        joints: (B, J, 3) at rest, metres.
        parents: J indices, each parent before its children; the first joint is the root.

    Returns:
        R (B, J, 3, 3), and the shifts t - R j (B, J, 3), so that x goes to R x + shift.

    Source: Loper et al., SMPL, SIGGRAPH Asia 2015, equations 3 and 4.
    """
    rotations, places = [rotmats[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        limb = joints[:, joint] - joints[:, parent]
        places.append(places[parent] + _turn(rotations[parent], limb))
        rotations.append(rotations[parent] @ rotmats[:, joint])
    rotation, place = torch.stack(rotations, dim=1), torch.stack(places, dim=1)
    return rotation, place - _turn(rotation, joints)


def blend_skin(vertices: Tensor, rotations: Tensor, shifts: Tensor, weights: Tensor) -> Tensor:
    """Move each vertex by the weighted mean of what the joints would do with it.

    x_v = sum_k weights_vk (R_k v + shift_k)

    Args:
        vertices: (B, V, 3) at rest, metres.
        rotations: (B, J, 3, 3).
        shifts: (B, J, 3).
        weights: (V, J), rows sum to 1.

    Returns:
        (B, V, 3) metres.

    Source: Loper et al., SMPL, SIGGRAPH Asia 2015, equations 2 and 4.
    """
    mean_rotations = torch.einsum("vj,bjkl->bvkl", weights, rotations)
    return _turn(mean_rotations, vertices) + weights @ shifts


def _turn(rotation: Tensor, point: Tensor) -> Tensor:
    return (rotation @ point.unsqueeze(-1)).squeeze(-1)
