"""Fitted bodies for the images whose true body nobody knows: SPIN's static and final fits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.hmr.files import check_radians, check_shapes, read_array, read_arrays
from depthbal.adapters.hmr.layout import TEST, DataSet, FitsKind
from depthbal.adapters.hmr.people import BETAS, POSE, People
from depthbal.adapters.hmr.spin_data import read_spin
from depthbal.errors import DataError

LARGEST_BETA = 3.0
"""A fit with a coefficient beyond is no believable body; its shape becomes the mean shape."""


def read_fits(path: Path, rows: int) -> dict[str, NDArray[Any]]:
    """Read static fits (.npy, (N, 82)) or final fits (.npz with pose, betas, valid_fit).

    Rows stand in the order of the data set's npz file. Static fits come without a judgement, so
    all of them count. Shapes with a coefficient beyond 3 become 0, as published.

    Args:
        path: ``static_fits/coco_fits.npy`` or ``spin_fits/coco.npz``.
        rows: How many the data set has.

    Returns:
        ``pose`` (N, 72) axis-angle in radians, ``betas`` (N, 10), ``valid`` (N,) True counts.

    Raises:
        DataError: The file is missing or damaged, lacks a key, its shape does not fit, or poses
            are in degrees.

    Source: SPIN, train/fits_dict.py; MMHuman3D, mesh_estimator.py.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "coco_fits.npy"
        >>> np.save(path, np.zeros((2, 82)))
        >>> read_fits(path, rows=2)["valid"].tolist()
        [True, True]
    """
    if path.suffix == ".npy":
        table = read_array(path)
        check_shapes(path, {"fits": table}, {"fits": ("N", POSE + BETAS)})
        arrays = {"pose": table[:, :POSE], "betas": table[:, POSE:], "valid": np.ones(len(table))}
    else:
        shapes = {"pose": ("N", POSE), "betas": ("N", BETAS), "valid_fit": ("N",)}
        arrays = read_arrays(path, shapes)
        arrays["valid"] = arrays.pop("valid_fit")
    found = len(arrays["pose"])
    if found != rows:
        raise DataError(
            f"{path} has {found} rows, the data set's npz file has {rows}: they belong to "
            "different versions of the data set"
        )
    valid = arrays["valid"].astype(bool)
    check_radians(path, "pose", arrays["pose"][valid])
    betas = arrays["betas"].astype(np.float32)
    betas[(np.abs(betas) > LARGEST_BETA).any(1)] = 0.0
    return {"pose": arrays["pose"].astype(np.float32), "betas": betas, "valid": valid}


def with_fits(people: People, path: Path) -> People:
    """Return people with fitted bodies in place of unknown ones; some may still lack one.

    Raises:
        DataError: As ``read_fits``.
    """
    known, fitted = people.valid, read_fits(path, len(people))
    return replace(
        people,
        pose=np.where(known[:, None], people.pose, fitted["pose"]),
        betas=np.where(known[:, None], people.betas, fitted["betas"]),
        valid=known | fitted["valid"],
    )


def read_people(root: Path, data: DataSet, kind: FitsKind) -> People:
    """Return the people of a data set's npz file, with the fits of that kind if they are there.

    Raises:
        DataError: As ``read_spin`` and ``read_fits``.
    """
    people = read_spin(root / data.rows, data.images(root), data.name)
    fits = data.fits(root, kind)
    return people if fits is None else with_fits(people, fits)


def read_test(root: Path) -> People:
    """Return the people of the test set.

    Raises:
        DataError: As ``read_spin``, or somebody's body is not known.
    """
    people = read_spin(root / TEST.rows, TEST.images(root), TEST.name)
    if not people.valid.all():
        raise DataError(f"{root / TEST.rows} must hold pose and shape of every row")
    return people
