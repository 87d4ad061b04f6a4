"""People of nobody with a random body, written in SPIN's formats: all that a training needs."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from depthbal.adapters.hmr.data import HmrDataModule
from depthbal.adapters.hmr.files import BETAS, JOINTS, POSE, STATIC, STEMS, rows_file
from depthbal.data.arrays import Array
from depthbal.data.cache import cache_file

VERSION = 1  # of the people; raised whenever the same seed would draw others
LATENT, FEATURES, NOISE = 8, 64, 0.35  # without noise the squared error would shrink no pose
ROWS = {"mpi_inf_3dhp": 800, "coco": 1200}
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
"""SMPL's kinematic tree: pelvis, hips, spine, knees, ... hands."""
_FROM_SMPL = [0, 2, 5, 8, 1, 4, 7, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21]
"""For each of the 17 joints of Human3.6M, SMPL's joint nearest to it."""


class SyntheticPeopleDataModule(HmrDataModule):
    """Three thousand synthetic people in the place of MPI-INF-3DHP, COCO and 3DPW.

    Args:
        root: Where they are, or are written if there is nothing; null: the user's cache directory.
        people: Seed of the people.
        **kwargs: Of `HmrDataModule`.
    """

    def __init__(self, root: str | None = None, people: int = 0, **kwargs: Any) -> None:
        super().__init__(str(root or cache_file("people", f"{VERSION}-{people}")), **kwargs)
        self.people = people

    def setup(self, stage: str | None = None) -> None:
        """Write the people if they are not there, and read them."""
        if not self.root.exists():
            parts = self.root.with_name(f".{self.root.name}.{os.getpid()}")
            write_people(parts, self.people)
            with suppress(OSError):  # another process was first
                parts.rename(self.root)
        super().setup(stage)


def write_people(
    root: Path, seed: int = 0, rows: dict[str, int] | None = None, test_rows: int = 1000
) -> Path:
    """Write the files of random people; COCO has fits alone, other sets half of the true bodies.

    A pose is a linear image of eight numbers, near the mean pose for nine people of ten and five
    times as far for the tenth; the features are those numbers and the shape, mixed, with noise.
    """
    for folder in ("dataset_extras", "features", "static_fits", "smpl"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = synthetic_smpl(seed=seed)
    for name, size in (("NEUTRAL", 1.0), ("MALE", 1.03), ("FEMALE", 0.97)):
        own = {**body, "v_template": size * body["v_template"]}
        np.savez(root / "smpl" / f"SMPL_{name}.npz", **own)
    np.save(root / "J_regressor_h36m.npy", body["J_regressor"][_FROM_SMPL])
    rest, shape = np.tile([1.0, 0, 0, 1, 0, 0], JOINTS), np.zeros(BETAS)
    np.savez(root / "smpl_mean_params.npz", pose=rest, shape=shape, cam=np.array([0.9, 0, 0]))

    draw = np.random.default_rng(seed)
    to_pose = draw.normal(scale=0.15, size=(LATENT, POSE))
    seen = draw.normal(scale=(LATENT + BETAS) ** -0.5, size=(LATENT + BETAS, FEATURES))
    for name, count in {**(rows or ROWS), "3dpw": test_rows}.items():
        spread = np.where(draw.random(count) < 0.1, 1.5, 0.3)
        latent = spread[:, None] * draw.normal(size=(count, LATENT))
        pose, betas = latent @ to_pose, 0.5 * draw.normal(size=(count, BETAS))
        shown = np.hstack([latent, betas])
        shown = shown + NOISE * draw.normal(size=shown.shape)
        np.save(root / "features" / f"{STEMS[name]}.npy", (shown @ seen).astype(np.float32))
        # twenty neighbouring rows are a sequence
        names = [f"sequence_{row // 20:03d}/{row:05d}.jpg" for row in range(count)]
        more: dict[str, Any] = {"center": np.full((count, 2), 112.0), "scale": np.full(count, 1.12)}
        if name == "3dpw":
            gender = np.where(np.arange(count) % 2, "f", "m")
            more |= {"pose": pose, "shape": betas, "gender": gender}
        else:
            file = root / "static_fits" / f"{STATIC.get(name, name)}_fits.npy"
            np.save(file, np.hstack([pose, betas]))
        if name not in ("3dpw", "coco"):
            true = (draw.random(count) < 0.5).astype(float)
            more |= {"pose": pose * true[:, None], "shape": betas * true[:, None], "has_smpl": true}
        np.savez(rows_file(root, name), imgname=np.array(names), **more)
    return root


def synthetic_smpl(vertices: int = 64, seed: int = 0) -> dict[str, Array]:
    """Return a random body of SMPL's keys and shapes: limbs with vertices at their joints."""
    draw = np.random.default_rng(seed)
    joints = np.zeros((JOINTS, 3))
    for joint, parent in enumerate(PARENTS[1:], start=1):
        limb = draw.normal(size=3)
        joints[joint] = joints[parent] + 0.2 * limb / np.linalg.norm(limb)
    owner = np.arange(vertices) % JOINTS
    regressor = (owner == np.arange(JOINTS)[:, None]).astype(float)
    weights = 0.1 * draw.dirichlet(np.ones(JOINTS), size=vertices) + 0.9 * regressor.T
    return {
        "v_template": joints[owner] + draw.normal(scale=0.03, size=(vertices, 3)),
        "shapedirs": draw.normal(scale=0.01, size=(vertices, 3, BETAS)),
        "posedirs": draw.normal(scale=0.003, size=(vertices, 3, 9 * (JOINTS - 1))),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.stack([PARENTS, range(JOINTS)]),
        "weights": weights,
    }
