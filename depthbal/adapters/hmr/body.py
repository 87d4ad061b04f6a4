"""The SMPL body: from pose and shape to vertices, and the joints that errors are measured on."""

from collections.abc import Mapping
from typing import Any

import roma
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthbal.adapters.hmr.files import JOINTS

H36M_TO_J14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The 14 of the 17 Human3.6M joints that errors are measured on (SPIN, MMHuman3D)."""


def rotmats_of(pose: Tensor) -> Tensor:
    """Return rotation matrices (B, 24, 3, 3) of axis-angle poses (B, 72) in radians."""
    return roma.rotvec_to_rotmat(pose.reshape(len(pose), JOINTS, 3))  # type: ignore[no-any-return]


class BodyModel(nn.Module):
    """Poses an SMPL body.

    The template is changed by shape, then by pose (the entries of each rotation but the root's,
    less the identity), and each vertex moves by the weighted mean of what the joints of the shaped
    body would do with it: x_v = sum_k weights_vk (R_k v + t_k - R_k j_k), with
    R_k = R_parent rotmat_k and t_k = t_parent + R_parent (j_k - j_parent) down the tree.
    Source: Loper et al., SMPL, SIGGRAPH Asia 2015, equations 2 to 4.

    Args:
        arrays: of `read_smpl` or `synthetic_smpl`.
        dtype: of the computation.

    Shape:
        rotmats (B, 24, 3, 3), betas (B, 10) -> vertices (B, V, 3), metres

    Example:
        >>> from depthbal.adapters.hmr.synthetic import synthetic_smpl
        >>> body = BodyModel(synthetic_smpl())
        >>> vertices = body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
        >>> torch.allclose(vertices[0], body.v_template, atol=1e-6)
        True
    """

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    weights: Tensor

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights"):
            array = torch.as_tensor(arrays[name].astype(float), dtype=dtype)
            # not for checkpoints: SMPL's licence forbids passing the arrays on
            self.register_buffer(name, array, persistent=False)
        self.parents = [int(parent) for parent in arrays["kintree_table"][0, 1:]]

    def forward(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """Return the vertices (B, V, 3) in metres."""
        if rotmats.shape[1:] != (JOINTS, 3, 3) or betas.shape != (len(rotmats), 10):
            raise ValueError(
                f"expected rotmats (B, 24, 3, 3) and betas (B, 10), got {tuple(rotmats.shape)} "
                f"and {tuple(betas.shape)}"
            )
        shaped = self.v_template + torch.einsum("vcs,bs->bvc", self.shapedirs, betas)
        bends = rotmats[:, 1:] - torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)
        posed = shaped + torch.einsum("vcp,bp->bvc", self.posedirs, bends.flatten(1))
        joints = self.J_regressor @ shaped
        turns, places = [rotmats[:, 0]], [joints[:, 0]]
        for joint, parent in enumerate(self.parents, start=1):
            limb = joints[:, joint] - joints[:, parent]
            places.append(places[parent] + _turn(turns[parent], limb))
            turns.append(turns[parent] @ rotmats[:, joint])
        rotations = torch.stack(turns, dim=1)
        shifts = torch.stack(places, dim=1) - _turn(rotations, joints)
        mean_rotations = torch.einsum("vj,bjkl->bvkl", self.weights, rotations)
        return _turn(mean_rotations, posed) + self.weights @ shifts


def _turn(rotation: Tensor, point: Tensor) -> Tensor:
    return (rotation @ point.unsqueeze(-1)).squeeze(-1)


def evaluation_joints(vertices: Tensor, regressor: Tensor) -> Tensor:
    """Return the 14 joints (B, 14, 3), seen from the pelvis, of vertices (B, V, 3).

    The regressor (17, V) gives Human3.6M's joints as weighted means of vertices, the pelvis first.

    Source: SPIN's `eval.py`.
    """
    joints = regressor @ vertices
    return joints[:, H36M_TO_J14, :] - joints[:, :1]
