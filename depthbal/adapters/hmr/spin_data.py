"""Rows of SPIN's npz files: which image, which box, and what is known of the body in it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.hmr.files import check_radians, check_shapes, load_arrays
from depthbal.adapters.hmr.people import BETAS, POSE, People
from depthbal.errors import DataError

NEEDED = ("imgname", "center", "scale")
OPTIONAL = ("pose", "shape", "has_smpl", "gender")


def read_spin(path: Path, images: Path = Path(), name: str = "") -> People:
    """Read a file of SPIN's ``dataset_extras``, such as coco_2014_train.npz.

    ``imgname``, ``center`` and ``scale`` must be there. Without ``pose`` and ``shape`` no body is
    known; with both but without ``has_smpl`` all are; without ``gender`` none is known. Other keys
    (keypoints) are left alone.

    Args:
        path: The file.
        images: The folder of its pictures.
        name: Of the data set.

    Raises:
        DataError: The file is missing or damaged, lacks a key, a key has another shape, or
            poses are in degrees.

    Source: Kolotouros et al., SPIN, ICCV 2019 (datasets/base_dataset.py).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "coco_2014_train.npz"
        >>> np.savez(path, imgname=["a.jpg"], center=[[10.0, 20.0]], scale=[0.5])
        >>> people = read_spin(path)
        >>> people.files.tolist(), people.valid.tolist(), people.gender.tolist()
        (['a.jpg'], [False], [-1])
    """
    more = load_arrays(path, (*NEEDED, *OPTIONAL))
    if lacking := [key for key in NEEDED if key not in more]:
        missing = ", ".join(map(repr, lacking))
        raise DataError(f"{path} lacks the key {missing}; expected {', '.join(NEEDED)}")
    boxes = {key: more.pop(key) for key in ("scale", "center")}
    check_shapes(path, boxes, {"scale": ("N",), "center": ("N", 2)})
    count = len(boxes["scale"])
    names = _texts(path, "imgname", more.pop("imgname"), count)
    genders = more.pop("gender", None)
    if not {"pose", "shape"} & set(more):
        more = {"pose": np.zeros((count, POSE)), "shape": np.zeros((count, BETAS))}
        more["has_smpl"] = np.zeros(count)
    more.setdefault("has_smpl", np.ones(count))
    shapes = {"pose": (count, POSE), "shape": (count, BETAS), "has_smpl": (count,)}
    check_shapes(path, more, shapes)
    valid = more["has_smpl"].astype(bool)
    check_radians(path, "pose", more["pose"][valid])
    return People(
        np.array([str(images / file) for file in names.tolist()]),
        **_boxes(path, boxes),
        pose=more["pose"].astype(np.float32),
        betas=more["shape"].astype(np.float32),
        valid=valid,
        gender=_genders(path, genders, count),
        group=np.full(count, name),
    )


def _boxes(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    scale = arrays["scale"].astype(np.float64)
    if not (len(scale) and scale.min() > 0):
        raise DataError(f"{path}: expected rows with scale above 0, got {scale}")
    return {"center": arrays["center"].astype(np.float64), "scale": scale}


def _genders(path: Path, found: NDArray[Any] | None, count: int) -> NDArray[np.int64]:
    if found is None:
        return np.full(count, -1)
    texts = _texts(path, "gender", found, count)
    unknown = set(texts.tolist()) - {"m", "f"}
    if unknown:
        raise DataError(f"{path}: expected 'm' or 'f' in gender, got {sorted(unknown)[:3]}")
    return np.where(texts == "m", 0, 1)


def _texts(path: Path, key: str, found: NDArray[Any], count: int) -> NDArray[np.str_]:
    if found.dtype.kind not in "SU" or found.shape != (count,):
        raise DataError(
            f"{path}: {key!r} has shape {found.shape} and type {found.dtype}, expected texts "
            f"({count},) like the rows of 'scale'"
        )
    return found.astype(np.str_)
