"""Meshes and joints of the people of a data folder, true and predicted."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from depthbal.adapters.hmr.body import BodyModel, evaluation_joints, load_body
from depthbal.adapters.hmr.distance import geodesic_pose_distance, vertex_distance
from depthbal.adapters.hmr.head import JOINTS, load_mean_params
from depthbal.adapters.hmr.layout import JOINT_REGRESSOR, MEAN_PARAMS, require_body
from depthbal.adapters.hmr.metrics import mpjpe, mpvpe, pa_mpjpe
from depthbal.adapters.hmr.people import People
from depthbal.adapters.hmr.rotations import axis_angle_to_rotmat
from depthbal.adapters.hmr.smpl_files import read_joint_regressor

GroundTruth = Literal["gendered", "neutral"]
CHUNK = 256


class Distances(NamedTuple):
    """How far bodies are from the mean pose, (N,) float64 each."""

    vertex: Tensor
    """Mean vertex distance in mm, as released."""
    geodesic: Tensor
    """Mean angle over the joints in radians, as in the paper."""


class Meshes(nn.Module):
    """The body models of a data folder, and what is measured with them.

    Args:
        root: The folder.
        ground_truth: "gendered" poses a true body of known gender with that gender's model;
            "neutral" all with the neutral one. Predictions are neutral, except that the error of
            the vertices takes the model of the truth (MMHuman3D).

    Raises:
        DataError: A file is missing or wrong.
    """

    def __init__(self, root: Path, ground_truth: GroundTruth = "neutral") -> None:
        super().__init__()
        names = ["NEUTRAL"] + (["MALE", "FEMALE"] if ground_truth == "gendered" else [])
        # numbered as genders are, with 1 added: -1 unknown, 0 male, 1 female
        self.bodies = nn.ModuleList(load_body(require_body(root, name)) for name in names)
        mean = load_mean_params(root / MEAN_PARAMS)
        self.mean_rotmats: Tensor
        self.mean_vertices: Tensor
        self.register_buffer("mean_rotmats", mean.rotmats, persistent=False)
        vertices = self.neutral(mean.rotmats[None], mean.shape[None])[0]
        self.register_buffer("mean_vertices", vertices, persistent=False)

    @property
    def neutral(self) -> BodyModel:
        """The neutral body model."""
        model: BodyModel = self.bodies[0]  # type: ignore[assignment]
        return model

    def of_gender(self, rotmats: Tensor, betas: Tensor, gender: Tensor) -> Tensor:
        """Return vertices (B, V, 3) by the model of each one's gender (B,), in metres."""
        vertices: Tensor = self.neutral(rotmats, betas)
        for number, body in enumerate(list(self.bodies)[1:]):
            chosen = gender == number
            if chosen.any():
                vertices[chosen] = body(rotmats[chosen], betas[chosen])
        return vertices

    def distances(self, rotmats: Tensor, vertices: Tensor) -> Distances:
        """Return how far poses (B, 24, 3, 3) and their bodies (B, V, 3) are from the mean."""
        return Distances(
            vertex_distance(vertices, self.mean_vertices).double(),
            geodesic_pose_distance(rotmats, self.mean_rotmats).double(),
        )


class Errors(Meshes):
    """The errors of predicted bodies in mm, by Human3.6M's joints.

    Args:
        root: The folder.
        ground_truth: See `Meshes`.
    """

    regressor: Tensor

    def __init__(self, root: Path, ground_truth: GroundTruth) -> None:
        super().__init__(root, ground_truth)
        regressor = read_joint_regressor(root / JOINT_REGRESSOR, len(self.mean_vertices))
        self.register_buffer("regressor", torch.as_tensor(regressor).float(), persistent=False)

    def forward(
        self, preds: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], gender: Tensor
    ) -> tuple[dict[str, Tensor], Distances]:
        """Return the errors by name, (B,) each, and the true bodies' distances.

        Args:
            preds: Rotation matrices (B, 24, 3, 3) and betas (B, 10).
            target: The same.
            gender: (B,) of the people.
        """
        true_vertices = self.of_gender(*target, gender)
        true_joints = evaluation_joints(true_vertices, self.regressor)
        joints = evaluation_joints(self.neutral(*preds), self.regressor)
        errors = {
            "mpjpe": mpjpe(joints, true_joints).double(),
            "pa_mpjpe": pa_mpjpe(joints, true_joints),
            "mpvpe": mpvpe(self.of_gender(*preds, gender), true_vertices).double(),
        }
        return errors, self.distances(target[0], true_vertices)


def rotmats_of(pose: Tensor) -> Tensor:
    """Return rotation matrices (B, 24, 3, 3) of axis-angle poses (B, 72)."""
    return axis_angle_to_rotmat(pose.reshape(len(pose), JOINTS, 3))


@torch.inference_mode()
def people_distances(root: Path, people: People, vertex: bool = True) -> Distances:
    """Return how far people's neutral bodies are from the mean pose.

    Args:
        root: Folder of the body model.
        people: Whose bodies.
        vertex: False leaves the vertex distance 0, which takes the most time.

    Raises:
        DataError: The body model is missing.
    """
    meshes = Meshes(root)
    parts = []
    for start in range(0, len(people), CHUNK):
        rotmats = rotmats_of(torch.from_numpy(people.pose[start : start + CHUNK]))
        betas = torch.from_numpy(people.betas[start : start + CHUNK])
        bodies = meshes.neutral(rotmats, betas) if vertex else meshes.mean_vertices[None]
        parts.append(meshes.distances(rotmats, bodies.expand(len(rotmats), -1, -1)))
    return Distances(*(torch.cat(column) for column in zip(*parts, strict=True)))
