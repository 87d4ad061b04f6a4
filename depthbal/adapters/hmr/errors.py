"""Errors of recovered bodies, two distances to the mean pose, and means balanced over them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import roma
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from depthbal.adapters.hmr.body import BodyModel, evaluation_joints, rotmats_of
from depthbal.adapters.hmr.files import read_arrays, read_smpl
from depthbal.adapters.hmr.network import read_mean, rot6d_to_rotmat
from depthbal.errors import DataError

GroundTruth = Literal["gendered", "neutral"]
ERRORS = ("mpjpe", "pa_mpjpe", "mpvpe")


def mpjpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean position error (B,) in mm, mean_j |preds_j - target_j|, nothing aligned.

    Of joints (B, J, 3) relative to the pelvis, in metres. Of vertices (B, V, 3) as the body model
    gives them it is the MPVPE: MMHuman3D's `pve`, which is not centred on the pelvis either.

    Example:
        >>> mpjpe(torch.zeros(1, 14, 3), torch.full((1, 14, 3), 0.3)).round(decimals=2)
        tensor([519.6200])
    """
    if preds.shape != target.shape:
        raise ValueError(
            f"preds {tuple(preds.shape)} and target {tuple(target.shape)} differ; pass (B, J, 3)"
        )
    distances: Tensor = torch.linalg.vector_norm(preds - target, dim=-1)
    return 1000 * distances.mean(dim=-1)


def pa_mpjpe(preds: Tensor, target: Tensor) -> Tensor:
    """Return `mpjpe` (B,) after the similarity transform (no reflection) that fits each sample.

    It minimises the squared distances, solved in float64. A prediction whose joints all coincide
    has no scale: it is moved onto the target's centre.

    Source: Umeyama, PAMI 1991; SPIN's `utils/pose_utils.py`.

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


def geodesic_distance(rotmats: Tensor, mean_rotmats: Tensor) -> Tensor:
    """Return the mean over the joints of the angle to the mean pose, (B,) in radians.

    Of (B, 24, 3, 3) and (24, 3, 3), the root included: the distance that the paper names
    (supplement, figure 3), which does not say whether the angles are summed or averaged; that is a
    factor of 24 and changes no bin. Exact where an angle is small; near pi to 3e-4 in float32.
    """
    angles: Tensor = roma.rotmat_geodesic_distance(rotmats, mean_rotmats)
    return angles.mean(dim=-1)


def body_file(root: Path, name: str) -> Path:
    """Return the file of a body model, NEUTRAL, MALE or FEMALE: .npz if it is there, else .pkl."""
    path = root / "smpl" / f"SMPL_{name}.npz"
    return path if path.is_file() else path.with_suffix(".pkl")


class Meshes(nn.Module):
    """The body models of a folder of SPIN's files, and what is measured with them.

    Args:
        root: The folder.
        ground_truth: "gendered" poses a true body of known gender with that gender's model;
            "neutral" all with the neutral one. Predictions are neutral, except that the error of
            the vertices takes the model of the truth (MMHuman3D).

    Raises:
        DataError: A file is missing or wrong, or the bodies have unequal numbers of vertices.
    """

    mean_rotmats: Tensor
    mean_vertices: Tensor
    regressor: Tensor

    def __init__(self, root: Path, ground_truth: GroundTruth = "neutral") -> None:
        super().__init__()
        names = ["NEUTRAL"] + (["MALE", "FEMALE"] if ground_truth == "gendered" else [])
        arrays = {name: read_smpl(body_file(root, name)) for name in names}
        sizes = {name: len(body["v_template"]) for name, body in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(
                f"the body models SMPL_*.pkl (or .npz) in {root}/smpl differ in their number of "
                f"vertices, v_template: {sizes}; give bodies of one kind, or set "
                "--data.ground_truth neutral"
            )
        # numbered as genders are, with 1 added: -1 unknown, 0 male, 1 female
        self.bodies = nn.ModuleList(map(BodyModel, arrays.values()))
        mean = read_mean(root)
        rotmats = rot6d_to_rotmat(mean["pose"].reshape(-1, 6))
        vertices = self.bodies[0](rotmats[None], mean["shape"][None])[0]
        shape = {"regressor": (17, sizes["NEUTRAL"])}
        regressor = torch.tensor(read_arrays(root / "J_regressor_h36m.npy", shape)["regressor"])
        for name, value in (("rotmats", rotmats), ("vertices", vertices)):
            self.register_buffer(f"mean_{name}", value, persistent=False)
        self.register_buffer("regressor", regressor.float(), persistent=False)

    def of_gender(self, rotmats: Tensor, betas: Tensor, gender: Tensor) -> Tensor:
        """Return vertices (B, V, 3) by the model of each one's gender (B,), in metres."""
        vertices: Tensor = self.bodies[0](rotmats, betas)
        for number, body in enumerate(list(self.bodies)[1:]):
            chosen = gender == number
            if chosen.any():
                vertices[chosen] = body(rotmats[chosen], betas[chosen])
        return vertices

    def vertex_distance(self, vertices: Tensor) -> Tensor:
        """Return the mean distance of vertices (B, V, 3) to the mean body's, (B,) float64 in mm.

        Nothing is aligned: turning the whole body away is distance too. This is the distance of
        the released evaluation (MMHuman3D's `ihmr` metric), to the neutral body in the mean pose.
        """
        return mpjpe(vertices, self.mean_vertices.expand_as(vertices)).double()

    def neutral_distance(self, pose: Tensor, betas: Tensor) -> Tensor:
        """Return `vertex_distance` of neutral bodies, (B,)."""
        return self.vertex_distance(self.bodies[0](rotmats_of(pose), betas))

    def forward(
        self, preds: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], gender: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return errors in mm of (rotmats, betas), and both distances of the true bodies, (B,)."""
        vertices = self.of_gender(*target, gender)
        joints = evaluation_joints(self.bodies[0](*preds), self.regressor)
        true_joints = evaluation_joints(vertices, self.regressor)
        errors = {
            "mpjpe": mpjpe(joints, true_joints).double(),
            "pa_mpjpe": pa_mpjpe(joints, true_joints),
            "mpvpe": mpjpe(self.of_gender(*preds, gender), vertices).double(),
        }
        geodesic = geodesic_distance(target[0], self.mean_rotmats).double()
        return errors, {"vertex": self.vertex_distance(vertices), "geodesic": geodesic}


def balanced_errors(
    errors: Mapping[str, ArrayLike],
    distance: ArrayLike,
    bins: int = 100,
    tails: Sequence[int] = (10, 5),
    groups: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return mean errors over bins of the distance and over the farthest samples, JSON-able.

    "all" is the unweighted mean over non-empty bins of the mean error in each; the bins are equal
    parts of [min, max] of `distance`. "tailP" is the plain mean over the int(N P / 100) farthest
    samples, None if that is none. The 95 % intervals hold for new errors at the same distances.

    Source: Ren et al., CVPR 2022 (supplement 2.4) as released in MMHuman3D
    (`human_image_dataset.py`), whose rule for the bin, int((d - min) / width - 0.001), puts the
    largest distance into the last bin.

    Args:
        errors: by name (N,), one per sample.
        distance: (N,) of the same samples, any unit.
        bins: how many.
        tails: percentages.
        groups: (N,) labels, such as the sequence of a video's frame, whose samples resemble each
            other; None or a single one takes samples for independent. With few, intervals are too
            narrow.

    Raises:
        DataError: no samples, another number of distances than of errors, or NaN or infinity.

    Example:
        >>> found = balanced_errors({"mpjpe": [1, 1, 1, 5]}, [0, 0, 0, 9], bins=3, tails=(25,))
        >>> found["mpjpe"]["all"], found["mpjpe"]["tail25"], found["bins_used"]
        (3.0, 5.0, 2)
    """
    far = np.asarray(distance, dtype=np.float64)
    table = {name: np.asarray(values, dtype=np.float64) for name, values in errors.items()}
    for values in table.values():
        if values.ndim != 1 or values.shape != far.shape or not len(far):
            shapes = f"{values.shape} and {far.shape}"
            raise DataError(f"expected errors and distances (N,), got {shapes}")
        if not np.isfinite(values + far).all():
            raise DataError("errors and distances must be finite")
    width = (far.max() - far.min()) / bins
    index = ((far - far.min()) / width - 0.001).astype(int) if width else np.zeros(len(far), int)
    counts = np.bincount(index, minlength=bins)
    farthest = np.argsort(-far, kind="stable")
    weights = {"all": 1 / (counts[index] * np.count_nonzero(counts))}
    for percent in tails:
        take = int(len(far) * percent / 100)
        weights[f"tail{percent}"] = np.zeros(len(far))
        weights[f"tail{percent}"][farthest[:take]] = 1 / max(take, 1)
    several = groups is not None and len(np.unique(groups)) > 1
    found: dict[str, Any] = {
        "bins": bins,
        "bins_used": int(np.count_nonzero(counts)),
        "counts": counts.tolist(),
        "edges": np.linspace(far.min(), far.max(), bins + 1).tolist(),
        "independent": "sequences" if several else "samples",
    }
    for name, values in table.items():
        means = {key: float(row @ values) if row.any() else None for key, row in weights.items()}
        half = _half_widths(np.stack([*weights.values()]), values, far, groups if several else None)
        ends = {
            key: [None, None] if mean is None else [mean - h, mean + h]
            for (key, mean), h in zip(means.items(), half, strict=True)
        }
        found[name] = {**means, "intervals_95": ends}
    return found


def _half_widths(
    weights: NDArray[np.float64],
    error: NDArray[np.float64],
    far: NDArray[np.float64],
    groups: ArrayLike | None,
) -> list[float]:
    """Return half the widths of the intervals of weighted means (rows of `weights`) of the errors.

    Each sample's variance is its squared residual from a parabola in the distance, divided by
    (1 - leverage)^2 (HC3 of MacKinnon and White, 1985; summed within groups first). The bootstrap
    would be wrong: a resample empties bins of one sample, which shifts the mean over bins so far
    that its percentile interval of 95 % held the truth in 24 to 91 % of simulations.
    """
    scaled = (far - far.mean()) / (far.std() or 1)
    basis = np.linalg.qr(np.vander(scaled, 3))[0]
    leverage = np.minimum(np.square(basis).sum(axis=1), 0.99)
    residual = (error - basis @ (basis.T @ error)) / (1 - leverage)
    labels = np.arange(len(far)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.array([np.bincount(labels, row * residual) for row in weights])
    half = NormalDist().inv_cdf(0.975) * np.sqrt(np.square(sums).sum(axis=1))
    return half.tolist()  # type: ignore[no-any-return]
