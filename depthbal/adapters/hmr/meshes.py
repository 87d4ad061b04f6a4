"""Meshes and joints of the people of a data folder, true and predicted."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from depthbal.adapters.hmr.body import BodyModel, evaluation_joints, load_body
from depthbal.adapters.hmr.distance import geodesic_pose_distance, vertex_distance
from depthbal.adapters.hmr.head import load_mean_params
from depthbal.adapters.hmr.layout import JOINT_REGRESSOR, MEAN_PARAMS, require_body
from depthbal.adapters.hmr.metrics import mpjpe, mpvpe, pa_mpjpe
from depthbal.adapters.hmr.people import People
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.adapters.hmr.smpl_files import read_joint_regressor
from depthbal.errors import DataError

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
        DataError: A file is missing or wrong, or the bodies have unequal numbers of vertices.
    """

    def __init__(self, root: Path, ground_truth: GroundTruth = "neutral") -> None:
        super().__init__()
        names = ["NEUTRAL"] + (["MALE", "FEMALE"] if ground_truth == "gendered" else [])
        # numbered as genders are, with 1 added: -1 unknown, 0 male, 1 female
        self.bodies = nn.ModuleList(load_body(require_body(root, name)) for name in names)
        sizes = {name: len(body.v_template) for name, body in zip(names, self.bodies, strict=True)}  # type: ignore[arg-type]
        if len(set(sizes.values())) > 1:
            raise DataError(
                f"the body models SMPL_*.pkl (or .npz) in {root}/smpl differ in their number of "
                f"vertices, v_template: {sizes}; give bodies of one kind, or set "
                "--data.ground_truth neutral"
            )
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
        distances = Distances(
            vertex_distance(true_vertices, self.mean_vertices).double(),
            geodesic_pose_distance(target[0], self.mean_rotmats).double(),
        )
        return errors, distances


@torch.inference_mode()
def people_distances(root: Path, people: People) -> Tensor:
    """Return the vertex distance of people's neutral bodies to the mean body, (N,) float64 in mm.

    Args:
        root: Folder of the body model.
        people: Whose bodies.

    Raises:
        DataError: The body model is missing.
    """
    meshes = Meshes(root)
    columns = (torch.split(torch.from_numpy(c), CHUNK) for c in (people.pose, people.betas))
    bodies = (meshes.neutral(rotmats_of(pose), betas) for pose, betas in zip(*columns, strict=True))
    return torch.cat([vertex_distance(body, meshes.mean_vertices).double() for body in bodies])
