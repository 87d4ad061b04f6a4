"""SMPL body model files, and a small random body of the same form."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.hmr.files import Shape, check_shapes, read_array, read_arrays
from depthbal.adapters.hmr.people import BETAS
from depthbal.adapters.hmr.rotations import JOINTS
from depthbal.adapters.hmr.unpickling import read_pickled_arrays
from depthbal.errors import DataError

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""SMPL's kinematic tree: pelvis, hips, spine, knees, ... hands."""

SMPL_SHAPES: dict[str, Shape] = {
    "v_template": ("V", 3),
    "shapedirs": ("V", 3, "betas"),
    "posedirs": ("V", 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, "V"),
    "kintree_table": (2, JOINTS),
    "weights": ("V", JOINTS),
}
"""What is read of a body model: metres, V vertices (6890 in the published ones)."""

SHORTEST, LONGEST = 0.5, 5.0
"""Metres between which the longest side of a template's box lies; in SMPL about 1.8."""

_FROM_SMPL = (0, 2, 5, 8, 1, 4, 7, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21)
"""For each of the 17 joints of Human3.6M, SMPL's joint nearest to it."""


def read_smpl(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read a body model from an .npz or a published .pkl, without chumpy or running code.

    Args:
        path: `SMPL_NEUTRAL.pkl` and the like, or the same arrays in an .npz (J_regressor dense).

    Returns:
        The arrays of `SMPL_SHAPES`, `shapedirs` cut to 10 components.

    Raises:
        DataError: no such file, damaged, asking for code, an array is missing or of another shape,
            or the body is not in metres, not of SMPL's tree, or its skinning weights do not sum to
            1 (names the file and the key or class).
    """
    path = Path(path)
    if path.suffix == ".npz":
        arrays = read_arrays(path, SMPL_SHAPES)
    else:
        arrays = read_pickled_arrays(path, SMPL_SHAPES)
        check_shapes(path, arrays, SMPL_SHAPES)
    if arrays["shapedirs"].shape[2] < BETAS:
        raise DataError(
            f"{path}: 'shapedirs' has {arrays['shapedirs'].shape[2]} components, expected at least "
            f"{BETAS}"
        )
    arrays["shapedirs"] = arrays["shapedirs"][:, :, :BETAS]
    _check_body(path, arrays)
    return arrays


def _check_body(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Check what a body of SMPL's form has beside its shapes: units, skinning, tree."""
    template = arrays["v_template"]
    extent = float((template.max(axis=0) - template.min(axis=0)).max())
    if not SHORTEST <= extent <= LONGEST:
        raise DataError(
            f"{path}: 'v_template' is {extent:.4g} long, expected a body of {SHORTEST:g} to "
            f"{LONGEST:g} metres; convert it to metres"
        )
    sums = arrays["weights"].sum(axis=1)
    if np.abs(sums - 1).max() > 1e-3:
        raise DataError(
            f"{path}: the rows of 'weights' sum to {sums.min():.4g} to {sums.max():.4g}, expected 1"
        )
    parents = arrays["kintree_table"][0, 1:].astype(np.int64).tolist()
    if parents != list(PARENTS[1:]):
        raise DataError(
            f"{path}: 'kintree_table' names the parents {parents}, expected SMPL's "
            f"{list(PARENTS[1:])}"
        )


def read_joint_regressor(path: str | Path, vertices: int | None = None) -> NDArray[Any]:
    """Read joints as weighted means of vertices, such as `J_regressor_h36m.npy` (17, 6890).

    Args:
        path: the file.
        vertices: V of the body, None for any.

    Raises:
        DataError: no such file, unreadable, or of another shape than (17, vertices).
    """
    regressor = read_array(path)
    shape: Shape = (len(_FROM_SMPL), "V" if vertices is None else vertices)
    check_shapes(path, {"regressor": regressor}, {"regressor": shape})
    return regressor


def synthetic_smpl(vertices: int = 64, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return a random small body of SMPL's form: a tree of limbs with vertices around its joints.

    It has SMPL's keys, shapes and types (and faces `f`, one triangle per three vertices), so that
    `numpy.savez` or a pickle of it is a body model file; it looks like nobody.

    Args:
        vertices: V, at least 24.
        seed: of the random numbers.

    Example:
        >>> body = synthetic_smpl(vertices=30)
        >>> body["weights"].shape, body["kintree_table"][0, 1:4].tolist()
        ((30, 24), [0, 0, 0])
    """
    if vertices < JOINTS:
        raise ValueError(f"expected at least {JOINTS} vertices, one per joint, got {vertices}")
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
        "kintree_table": np.stack([np.array(PARENTS), np.arange(JOINTS)]).astype(np.uint32),
        "weights": weights,
        "f": np.arange(vertices // 3 * 3, dtype=np.uint32).reshape(-1, 3),
    }


def synthetic_h36m_regressor(smpl: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Return a regressor (17, V) of Human3.6M joints: of the joints of `smpl` nearest to each."""
    return smpl["J_regressor"][list(_FROM_SMPL)]
