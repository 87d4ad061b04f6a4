"""SPIN's npz files: which keys must be there, what their absence means, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthbal.adapters.hmr.spin_data import read_spin
from depthbal.errors import DataError


def write(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "imgname": np.array(["a.jpg", "b.jpg", "c.jpg"]),
        "center": np.array([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]),
        "scale": np.array([0.5, 1.0, 1.5]),
        "part": np.zeros((3, 24, 3)),
        **changes,
    }
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coco_2014_train.npz"


def bodies() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {"pose": draw.normal(size=(3, 72)), "shape": draw.normal(size=(3, 10))}


def test_without_pose_and_shape_no_body_is_known(path: Path) -> None:
    rows = read_spin(write(path))
    assert not rows.valid.any()
    assert rows.pose.shape == (3, 72)
    assert rows.gender.tolist() == [-1, -1, -1]


def test_pose_without_has_smpl_makes_every_body_known(path: Path) -> None:
    rows = read_spin(write(path, **bodies()))
    assert rows.valid.all()
    np.testing.assert_allclose(rows.betas, bodies()["shape"], rtol=1e-6)


def test_has_smpl_says_which_bodies_are_known_and_gender_is_numbered_as_published(
    path: Path,
) -> None:
    gender = np.array(["m", "f", "m"])
    rows = read_spin(write(path, **bodies(), has_smpl=np.array([1.0, 0.0, 1.0]), gender=gender))
    assert rows.valid.tolist() == [True, False, True]
    assert rows.gender.tolist() == [0, 1, 0]


def test_texts_of_bytes_are_read(path: Path) -> None:
    assert read_spin(write(path, imgname=np.array([b"a", b"b", b"c"]))).files.tolist() == [
        *("a", "b", "c")
    ]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"scale": None}, "scale"),
        ({"center": None}, "center"),
        ({"imgname": None}, "imgname"),
        ({"center": np.zeros((2, 2))}, "center"),
        ({"scale": np.array([1.0, np.nan, 1.0])}, "scale"),
        ({"scale": np.array([1.0, 0.0, 1.0])}, "scale"),
        ({"imgname": np.array(["a"])}, "imgname"),
        ({"imgname": np.array([{"a": 1}, None, 3])}, "imgname"),
        ({"pose": np.zeros((3, 72))}, "shape"),
        ({"pose": np.zeros((3, 66)), "shape": np.zeros((3, 10))}, "pose"),
        ({**bodies(), "has_smpl": np.ones(2)}, "has_smpl"),
        ({"gender": np.array(["m", "f", "x"])}, "gender"),
        ({**bodies(), "pose": np.full((3, 72), 90.0)}, "'pose' .*radians"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file_and_key(
    path: Path, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(DataError, match=key) as caught:
        read_spin(write(path, **changes))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["imgname", "center", "gender"])
def test_a_damaged_member_is_named(path: Path, key: str) -> None:
    content = bytearray(write(path, gender=np.array(["m", "f", "m"])).read_bytes())
    start = content.index(f"{key}.npy".encode())
    content[content.index(b"NUMPY", start) + 130] ^= 0xFF  # its checksum no longer fits
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"coco_2014_train\.npz with the key '{key}'"):
        read_spin(path)


def test_missing_and_damaged_files_are_named(path: Path) -> None:
    with pytest.raises(DataError, match="coco_2014_train"):
        read_spin(path)
    path.write_bytes(write(path).read_bytes()[:200])
    with pytest.raises(DataError, match="coco_2014_train"):
        read_spin(path)
