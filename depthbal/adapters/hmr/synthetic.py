"""A small synthetic data set in SPIN's formats: everything a training needs, of nobody."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.hmr.head import zero_mean_params
from depthbal.adapters.hmr.layout import JOINT_REGRESSOR, MEAN_PARAMS, TEST, TRAINING, DataSet
from depthbal.adapters.hmr.people import BETAS, POSE
from depthbal.adapters.hmr.smpl_files import synthetic_h36m_regressor, synthetic_smpl

LATENT, FEATURES = 8, 64
FAR_SHARE = 0.1
NEAR_SPREAD, FAR_SPREAD = 0.3, 1.5
NOISE = 0.35  # of what features show; without it the squared error would shrink no pose


def write_synthetic(
    root: Path, seed: int = 0, rows: dict[str, int] | None = None, test_rows: int = 1000
) -> Path:
    """Write bodies, npz files, static fits and features of random people into a folder.

    A pose is a linear image of eight numbers, near the mean pose for nine people of ten and five
    times as far for the tenth; the features are those numbers and the shape, mixed, with noise.
    COCO has fits alone, MPI-INF-3DHP true bodies for half of its rows, as SPIN's files do.

    Args:
        root: The folder; files in it are replaced.
        seed: Of all random numbers.
        rows: Rows per training data set.
        test_rows: Rows of the test set.

    Returns:
        ``root``.
    """
    draw = np.random.default_rng(seed)
    world = _World(draw)
    _write_bodies(root, seed)
    for name, count in (rows or {"mpi_inf_3dhp": 800, "coco": 1200}).items():
        _write_training(root, TRAINING[name], world.people(draw, count), draw)
    pose, betas, features = world.people(draw, test_rows)
    gender = np.where(np.arange(test_rows) % 2, "f", "m")
    _save(root, TEST, features, pose=pose, shape=betas, gender=gender, parts=False)
    return root


class _World:
    """How poses and features follow from a person's eight numbers."""

    def __init__(self, draw: np.random.Generator) -> None:
        self.pose = draw.normal(scale=0.15, size=(LATENT, POSE))
        self.seen = draw.normal(scale=(LATENT + BETAS) ** -0.5, size=(LATENT + BETAS, FEATURES))

    def people(
        self, draw: np.random.Generator, count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Return poses (N, 72), betas (N, 10) and features (N, F)."""
        spread = np.where(draw.random(count) < FAR_SHARE, FAR_SPREAD, NEAR_SPREAD)
        latent = spread[:, None] * draw.normal(size=(count, LATENT))
        betas = 0.5 * draw.normal(size=(count, BETAS))
        blurred = np.hstack([latent, betas])
        blurred = blurred + NOISE * draw.normal(size=blurred.shape)
        return latent @ self.pose, betas, (blurred @ self.seen).astype(np.float32)


def _write_training(
    root: Path, data: DataSet, people: tuple[Any, Any, Any], draw: np.random.Generator
) -> None:
    pose, betas, features = people
    assert data.static is not None
    (root / data.static).parent.mkdir(parents=True, exist_ok=True)
    np.save(root / data.static, np.hstack([pose, betas]))
    if data.name == "coco":
        _save(root, data, features)
    else:
        known = draw.random(len(pose)) < 0.5
        own = {"pose": pose * known[:, None], "shape": betas * known[:, None]}
        _save(root, data, features, **own, has_smpl=known.astype(np.float64))


def _save(
    root: Path, data: DataSet, features: NDArray[np.float32], parts: bool = True, **more: Any
) -> None:
    count = len(features)
    if parts:
        more |= {"part": np.zeros((count, 24, 3)), "openpose": np.zeros((count, 25, 3))}
    for path in (root / data.rows, data.features(root)):
        path.parent.mkdir(parents=True, exist_ok=True)
    # twenty neighbouring rows are a sequence
    names = [f"sequence_{row // 20:03d}/{row:05d}.jpg" for row in range(count)]
    boxes: dict[str, Any] = {"center": np.full((count, 2), 112.0), "scale": np.full(count, 1.12)}
    np.savez(root / data.rows, imgname=np.array(names), **boxes, **more)
    np.save(data.features(root), features)


def _write_bodies(root: Path, seed: int) -> None:
    (root / "smpl").mkdir(parents=True, exist_ok=True)
    neutral = synthetic_smpl(seed=seed)
    for name, size in (("NEUTRAL", 1.0), ("MALE", 1.03), ("FEMALE", 0.97)):
        body: dict[str, Any] = neutral | {"v_template": size * neutral["v_template"]}
        np.savez(root / "smpl" / f"SMPL_{name}.npz", **body)
    np.save(root / JOINT_REGRESSOR, synthetic_h36m_regressor(neutral))
    mean = zero_mean_params()
    np.savez(root / MEAN_PARAMS, pose=mean.pose, shape=mean.shape, cam=mean.cam)
