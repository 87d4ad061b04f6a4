"""Anybody's prediction files: found by the image's path, read in every format, refused clearly."""

import cv2
import numpy as np
import pytest

from depthbal.data import PredictionFolder
from depthbal.errors import DataError

NAMES = ["rgb/kitchen/0001.jpg", "rgb/hall/0001.jpg", "rgb/hall/0002.jpg"]
DEPTH = np.array([[1.0, 2.5, 0.0], [4.0, 9.0, 3.25]], dtype=np.float32)


def write(path, depth=DEPTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, depth)
    elif path.suffix == ".npz":
        np.savez(path, depth=depth, confidence=depth)
    elif path.suffix == ".png":
        cv2.imwrite(str(path), np.rint(depth * 1000).astype(np.uint16))
    else:
        cv2.imwrite(str(path), depth)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".tiff", ".pfm"])
def test_every_format_is_read_as_metres(tmp_path, suffix):
    write(tmp_path / f"0001{suffix}")
    read = PredictionFolder(tmp_path, ["a/0001.jpg"])(0)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, DEPTH, atol=1e-6)


def test_files_are_found_by_the_longest_part_of_the_path_that_agrees(tmp_path):
    for name in ("kitchen/0001.npy", "hall/0001.npy", "0002.npy"):
        write(tmp_path / name)
    files = PredictionFolder(tmp_path, NAMES).files
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "kitchen/0001.npy",
        "hall/0001.npy",
        "0002.npy",
    ]


def test_an_images_path_may_be_the_end_of_the_files(tmp_path):
    write(tmp_path / "out" / "hall" / "0001.npy")
    assert PredictionFolder(tmp_path, ["hall/0001.jpg"]).files[0].name == "0001.npy"
    with pytest.raises(DataError, match="1 of 1 images"):
        PredictionFolder(tmp_path, ["study/0001.jpg"])


def test_a_pattern_names_files_that_are_called_otherwise(tmp_path):
    write(tmp_path / "kitchen-0001_pred.npy")
    write(tmp_path / "0002_pred.npy")
    found = PredictionFolder(tmp_path, NAMES[2:], pattern="{stem}_pred")
    assert found.files == [tmp_path / "0002_pred.npy"]


def test_a_scale_turns_the_files_numbers_into_metres(tmp_path):
    cv2.imwrite(str(tmp_path / "0001.png"), np.array([[255, 51]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"uint8.*set scale to"):
        PredictionFolder(tmp_path, ["0001.jpg"])(0)
    scaled = PredictionFolder(tmp_path, ["0001.jpg"], scale=10 / 255)(0)
    np.testing.assert_allclose(scaled, [[10.0, 2.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no predictions"),
        (["0002.npy"], r"2 of 3 images have no prediction .*kitchen/0001.*--allow-missing"),
        (["kitchen/0001.npy", "kitchen/0001.png"], r"0001.npy and .*0001.png are both for"),
        (["0001.npy", "0002.npy"], r"0001.npy would be the prediction for .*kitchen.* and .*hall"),
    ],
)
def test_files_that_do_not_fit_the_images_are_refused(tmp_path, files, message):
    for name in files:
        write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        PredictionFolder(tmp_path, NAMES)


def test_missing_files_can_be_allowed(tmp_path):
    write(tmp_path / "0002.npy")
    found = PredictionFolder(tmp_path, NAMES, allow_missing=True)
    assert found.missing == NAMES[:2]
    assert found(2).shape == DEPTH.shape


def test_a_file_without_a_map_is_named(tmp_path):
    np.save(tmp_path / "0001.npy", np.arange(24).reshape(2, 3, 4))
    with pytest.raises(DataError, match=r"0001.npy"):
        PredictionFolder(tmp_path, ["0001.jpg"])(0)
