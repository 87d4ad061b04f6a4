"""The SMPL body: from pose and shape to vertices and joints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthbal.adapters.hmr.skinning import blend_skin, world_transforms
from depthbal.adapters.hmr.smpl_files import read_smpl

H36M_TO_J14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The 14 of the 17 Human3.6M joints that errors are measured on (SPIN, MMHuman3D)."""


class BodyModel(nn.Module):
    """Poses an SMPL body.

    The template is changed by shape, then by pose (the entries of each rotation but the root's,
    less the identity), and skinned about the joints of the shaped body.

    Source: Loper et al., SMPL, SIGGRAPH Asia 2015.

    Args:
        arrays: of `read_smpl` or `synthetic_smpl`.
        dtype: of the computation.

    Shape:
        rotmats (B, 24, 3, 3), betas (B, 10) -> vertices (B, V, 3), metres

    Example:
        >>> from depthbal.adapters.hmr.smpl_files import synthetic_smpl
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
            self.register_buffer(name, array[:, :, :10] if name == "shapedirs" else array, False)
        self.parents = [-1, *(int(parent) for parent in arrays["kintree_table"][0, 1:])]

    def forward(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """Return the vertices (B, V, 3) in metres."""
        if rotmats.shape[1:] != (24, 3, 3) or betas.shape != (len(rotmats), 10):
            raise ValueError(
                f"expected rotmats (B, 24, 3, 3) and betas (B, 10), got {tuple(rotmats.shape)} "
                f"and {tuple(betas.shape)}"
            )
        shaped = self.v_template + torch.einsum("vcs,bs->bvc", self.shapedirs, betas)
        bends = rotmats[:, 1:] - torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)
        posed = shaped + torch.einsum("vcp,bp->bvc", self.posedirs, bends.flatten(1))
        rotations, shifts = world_transforms(rotmats, self.J_regressor @ shaped, self.parents)
        return blend_skin(posed, rotations, shifts, self.weights)


def load_body(path: str | Path, dtype: torch.dtype = torch.float32) -> BodyModel:
    """Return the body model of a file.

    Raises:
        DataError: as `read_smpl`.
    """
    return BodyModel(read_smpl(path), dtype)


def evaluation_joints(vertices: Tensor, regressor: Tensor) -> Tensor:
    """Return the 14 joints (B, 14, 3) that errors are measured on, relative to the pelvis.

    Args:
        vertices: (B, V, 3), metres.
        regressor: (17, V), Human3.6M's joints as weighted means of vertices; the first is the
            pelvis.

    Source: SPIN's `eval.py`.
    """
    joints = regressor @ vertices
    return joints[:, H36M_TO_J14, :] - joints[:, :1]
