"""Rows of SPIN's npz files: which image, which box, and what is known of the body in it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.hmr.files import check_shapes, read_arrays
from depthbal.adapters.hmr.people import BETAS, POSE, People
from depthbal.errors import DataError

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
        DataError: The file is missing or damaged, lacks a key, or a key has another shape.

    Source: Kolotouros et al., SPIN, ICCV 2019 (datasets/base_dataset.py).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "coco_2014_train.npz"
        >>> np.savez(path, imgname=["a.jpg"], center=[[10.0, 20.0]], scale=[0.5])
        >>> people = read_spin(path)
        >>> people.files.tolist(), people.valid.tolist(), people.gender.tolist()
        (['a.jpg'], [False], [-1])
    """
    boxes = read_arrays(path, {"scale": ("N",), "center": ("N", 2)})
    count = len(boxes["scale"])
    more = _read_optional(path)
    if "imgname" not in more:
        raise DataError(f"{path} lacks the key 'imgname'; expected imgname, center, scale")
    names = _texts(path, "imgname", more.pop("imgname"), count)
    genders = more.pop("gender", None)
    if not {"pose", "shape"} & set(more):
        more = {"pose": np.zeros((count, POSE)), "shape": np.zeros((count, BETAS))}
        more["has_smpl"] = np.zeros(count)
    more.setdefault("has_smpl", np.ones(count))
    shapes = {"pose": (count, POSE), "shape": (count, BETAS), "has_smpl": (count,)}
    check_shapes(path, more, shapes)
    return People(
        np.array([str(images / file) for file in names.tolist()]),
        **_boxes(path, boxes),
        pose=more["pose"].astype(np.float32),
        betas=more["shape"].astype(np.float32),
        valid=more["has_smpl"].astype(bool),
        gender=_genders(path, genders, count),
        group=np.full(count, name),
    )


def _read_optional(path: Path) -> dict[str, NDArray[Any]]:
    """Return the names of the images and the keys that need not be there."""
    found = {}
    with np.load(path, allow_pickle=False) as content:
        for key in ("imgname", *OPTIONAL):
            if key in content.files:
                try:
                    found[key] = content[key]
                except ValueError as error:
                    raise DataError(f"{path}: cannot read the key {key!r}: {error}") from error
    return found


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
