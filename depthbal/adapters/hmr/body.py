"""The SMPL body, from pose and shape to vertices and joints, and the errors of recovered bodies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import roma
import torch
from torch import Tensor, nn

from depthbal.adapters.hmr.files import BETAS, JOINTS, SMPL_SHAPES, read
from depthbal.adapters.hmr.network import read_mean, rot6d_to_rotmat
from depthbal.data.arrays import Array

GroundTruth = Literal["gendered", "neutral"]
ERRORS = ("mpjpe", "pa_mpjpe", "mpvpe")
H36M_TO_J14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The 14 of the 17 Human3.6M joints that errors are measured on (SPIN, MMHuman3D)."""


def rotmats_of(pose: Tensor) -> Tensor:
    """Return rotation matrices (B, 24, 3, 3) of axis-angle poses (B, 72) in radians."""
    return roma.rotvec_to_rotmat(pose.reshape(len(pose), JOINTS, 3))  # type: ignore[no-any-return]


class BodyModel(nn.Module):
    """Poses an SMPL body (Loper et al., SIGGRAPH Asia 2015, equations 2 to 4)."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        super().__init__()
        self.v_template = _buffer(arrays["v_template"])
        self.shapedirs = _buffer(arrays["shapedirs"][:, :, :BETAS])
        self.posedirs = _buffer(arrays["posedirs"])
        self.J_regressor = _buffer(arrays["J_regressor"])
        self.weights = _buffer(arrays["weights"])
        self.parents = [int(parent) for parent in arrays["kintree_table"][0, 1:]]

    def forward(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """Return vertices (B, V, 3) in metres of rotations (B, 24, 3, 3) and betas (B, 10)."""
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


def _buffer(values: Any) -> nn.Buffer:
    # not for checkpoints: SMPL's licence forbids passing the arrays on
    return nn.Buffer(torch.as_tensor(np.array(values)).float(), persistent=False)


def _turn(rotation: Tensor, point: Tensor) -> Tensor:
    return (rotation @ point.unsqueeze(-1)).squeeze(-1)


def mpjpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean distance (B,) in mm of joints or vertices (B, P, 3) in metres."""
    distances: Tensor = torch.linalg.vector_norm(preds - target, dim=-1)
    return 1000 * distances.mean(dim=-1)


def pa_mpjpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return `mpjpe` (B,) after the similarity (no reflection) that fits best (Umeyama, 1991)."""
    preds, target = preds.double(), target.double()
    rotation, _, scale = roma.rigid_points_registration(preds, target, compute_scaling=True)
    centred = preds - preds.mean(dim=1, keepdim=True)
    # 0 / 0 where all joints coincide; any scale gives the same points
    turned = scale.nan_to_num()[:, None, None] * centred @ rotation.mT
    return mpjpe(turned + target.mean(dim=1, keepdim=True), target)


def geodesic_distance(rotmats: Tensor, mean_rotmats: Tensor) -> Tensor:
    """Return the mean angle (B,) in radians of (B, 24, 3, 3) to the mean pose (24, 3, 3)."""
    return roma.rotmat_geodesic_distance(rotmats, mean_rotmats).mean(-1)  # type: ignore[no-any-return]


class Meshes(nn.Module):
    """The body models of a folder of SPIN's files, and what is measured with them.

    Predictions are neutral, but for the vertices' error, which takes the truth's model (MMHuman3D).
    """

    def __init__(self, root: Path, ground_truth: GroundTruth = "neutral") -> None:
        super().__init__()
        names = ("NEUTRAL", "MALE", "FEMALE")[: 3 if ground_truth == "gendered" else 1]
        files = [root / "smpl" / f"SMPL_{name}.npz" for name in names]
        files = [file if file.is_file() else file.with_suffix(".pkl") for file in files]
        sizes: dict[str, Any] = {}  # all have as many vertices
        bodies = [BodyModel(read(file, SMPL_SHAPES, sizes)) for file in files]
        # numbered as genders are, with 1 added: -1 unknown, 0 male, 1 female
        self.bodies, self.neutral = nn.ModuleList(bodies), bodies[0]
        mean = read_mean(root)
        self.mean_rotmats = _buffer(rot6d_to_rotmat(mean["pose"].reshape(-1, 6)))
        self.mean_vertices = _buffer(self.neutral(self.mean_rotmats[None], mean["shape"][None])[0])
        found = read(root / "J_regressor_h36m.npy", {"regressor": (17, "V")}, sizes)
        self.regressor = _buffer(found["regressor"])

    def joints(self, vertices: Tensor) -> Tensor:
        """Return the 14 joints (B, 14, 3) that errors are measured on, seen from the pelvis."""
        joints = self.regressor @ vertices
        return joints[:, H36M_TO_J14, :] - joints[:, :1]

    def of_gender(self, rotmats: Tensor, betas: Tensor, gender: Tensor) -> Tensor:
        """Return vertices (B, V, 3) by the model of each one's gender (B,), in metres."""
        vertices: Tensor = self.neutral(rotmats, betas)
        for number, body in enumerate(list(self.bodies)[1:]):
            chosen = gender == number
            vertices[chosen] = body(rotmats[chosen], betas[chosen])
        return vertices

    def distance(self, vertices: Tensor) -> Tensor:
        """Return the mean distance of vertices (B, V, 3) to the mean body's, (B,) in mm."""
        return mpjpe(vertices, self.mean_vertices.expand_as(vertices)).double()

    def forward(
        self, preds: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], gender: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return errors in mm of (rotmats, betas), and both distances of the true bodies, (B,)."""
        vertices = self.of_gender(*target, gender)
        joints, true_joints = self.joints(self.neutral(*preds)), self.joints(vertices)
        errors = {
            "mpjpe": mpjpe(joints, true_joints).double(),
            "pa_mpjpe": pa_mpjpe(joints, true_joints),
            "mpvpe": mpjpe(self.of_gender(*preds, gender), vertices).double(),
        }
        geodesic = geodesic_distance(target[0], self.mean_rotmats).double()
        return errors, {"vertex": self.distance(vertices), "geodesic": geodesic}
