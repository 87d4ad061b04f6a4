"""SPIN's files: bodies, people in pictures, fits."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from depthbal.data.arrays import Array, read_arrays
from depthbal.errors import DataError

SOURCES = """. What is needed, and from where:
smpl/SMPL_NEUTRAL.pkl (or .npz): smplify.is.tue.mpg.de, after registration
smpl/SMPL_MALE.pkl, SMPL_FEMALE.pkl: smpl.is.tue.mpg.de; not with --data.ground_truth neutral
smpl_mean_params.npz, J_regressor_h36m.npy: SPIN's data.tar.gz, or the links in MMHuman3D's README
dataset_extras/3dpw_test.npz and any of h36m_train, mpi_inf_3dhp_train, lsp_dataset_original_train,
  hr-lspet_train, mpii_train, coco_2014_train: SPIN's dataset_extras.tar.gz, or its preprocessing
static_fits/NAME_fits.npy or spin_fits/NAME.npz: SPIN's static_fits.tar.gz, spin_fits.tar.gz
images/NAME/: each data set's site; with --model.model.weights, SPIN's model_checkpoint.pt or
  MMHuman3D's spin_official_nofc.pth; or in their place features/STEM.npy, float32 (rows, F)
(SPIN's host, visiondata.cis.upenn.edu/spin, is reported unreachable since 2025.)"""
"""What SPIN's data folder holds, and where it comes from."""

read = partial(read_arrays, hint=SOURCES)
People = dict[str, Array]
"""Columns of N people in pictures: "file"; the box, "center" (N, 2) in pixels and "scale" (N,) in
200 pixels; "pose" (N, 72) axis-angle in radians and "betas" (N, 10), 0 where unknown; "valid" where
the body may be learned from; "gender" 0 male, 1 female, -1 unknown."""
FitsKind = Literal["static", "final"]
JOINTS, POSE, BETAS, TEST = 24, 72, 10, "3dpw"
STEMS = {
    "h36m": "h36m_train",
    "mpi_inf_3dhp": "mpi_inf_3dhp_train",
    "lsp": "lsp_dataset_original_train",
    "lspet": "hr-lspet_train",
    "mpii": "mpii_train",
    "coco": "coco_2014_train",
    TEST: "3dpw_test",
}
SMPL_SHAPES = {
    "v_template": ("V", 3),
    "shapedirs": ("V", 3, "components"),
    "posedirs": ("V", 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, "V"),
    "kintree_table": (2, JOINTS),
    "weights": ("V", JOINTS),
}
"""The arrays of a body model, .npz or published .pkl, of V vertices in metres."""
STATIC = {"mpi_inf_3dhp": "mpi-inf-3dhp", "lsp": "lsp-orig"}  # static fits of the others: as here


def rows_file(root: Path, name: str) -> Path:
    """Return where the rows of a data set are."""
    return root / "dataset_extras" / f"{STEMS.get(name, name)}.npz"


def read_people(root: Path, name: str, kind: FitsKind = "static") -> People:
    """Return a data set's people, of SPIN's ``dataset_extras`` and its fits where there are any."""
    # as SPIN's datasets/base_dataset.py: without has_smpl all bodies are known, the fits' ones else
    path, sizes = rows_file(root, name), dict[str, Any]()
    boxes = {"scale": ("N",), "center": ("N", 2), "imgname": ("N",), "gender": ("N",)}
    body = {"pose": ("N", POSE), "shape": ("N", BETAS), "has_smpl": ("N",)}
    found = read(path, {**boxes, **body}, sizes, (*body, "gender"), ("imgname", "gender"))
    count = sizes["N"]
    gender = found.get("gender", np.full(count, "")).astype(np.str_)
    known = found.get("has_smpl", np.ones(count)) if "pose" in found else np.zeros(count)
    if ("pose" in found) != ("shape" in found):
        raise DataError(f"{path} must hold both 'pose' and 'shape', or neither")
    files = [str(root / "images" / name / file) for file in found["imgname"].astype(np.str_)]
    people: People = {
        "file": np.array(files),
        "center": found["center"].astype(np.float64),
        "scale": found["scale"].astype(np.float64),
        "pose": found.get("pose", np.zeros((count, POSE))).astype(np.float32),
        "betas": found.get("shape", np.zeros((count, BETAS))).astype(np.float32),
        "valid": known.astype(bool),
        "gender": np.select([gender == "m", gender == "f"], [0, 1], -1),
    }
    static = root / "static_fits" / f"{STATIC.get(name, name)}_fits.npy"
    fits = static if kind == "static" else root / "spin_fits" / f"{name}.npz"
    if fits.is_file():
        pose, betas, fitted = read_fits(fits, count)
        unknown = ~people["valid"][:, None]
        people["pose"] = np.where(unknown, pose, people["pose"])
        people["betas"] = np.where(unknown, betas, people["betas"])
        people["valid"] = people["valid"] | fitted
    return people


def read_fits(path: Path, rows: int) -> tuple[Array, Array, Array]:
    """Return pose (N, 72), betas (N, 10) and which count (N,), in the order of the npz file."""
    if path.suffix == ".npy":  # static fits come without a judgement, final ones say it
        table = read(path, {"fits": (rows, POSE + BETAS)})["fits"]
        pose, betas, valid = table[:, :POSE], table[:, POSE:], np.ones(rows)
    else:
        body = {"pose": (rows, POSE), "betas": (rows, BETAS), "valid_fit": (rows,)}
        pose, betas, valid = map(read(path, body).__getitem__, body)
    believable = (np.abs(betas) <= 3).all(axis=1, keepdims=True)  # as in MMHuman3D
    betas = np.where(believable, betas, 0)
    return pose.astype(np.float32), betas.astype(np.float32), valid.astype(bool)
