"""Anybody's prediction files: found by the image's path, read as metres, refused clearly."""

import cv2
import numpy as np
import pytest

from depthbal.data import PredictionFolder
from depthbal.errors import DataError
from tests.data.make_files import write_file

NAMES = ["rgb/kitchen/0001.jpg", "rgb/hall/0001.jpg", "rgb/hall/0002.jpg"]
DEPTH = np.array([[1.0, 2.5, 0.0], [4.0, 9.0, 3.25]], dtype=np.float32)


@pytest.mark.parametrize(
    ("names", "pattern", "files"),
    [
        (NAMES, None, ["kitchen/0001.npy", "hall/0001.npy", "0002.npy"]),
        (["hall/0001.jpg"], None, ["out/hall/0001.npy"]),
        (NAMES[1:], "{stem}_pred", ["0001_pred.npy", "0002_pred.npy"]),
        (NAMES[1:2], "{path}-d", ["rgb/hall/0001-d.npy"]),
    ],
)
def test_files_are_found_by_the_longest_part_of_the_path_that_agrees_or_a_pattern(
    tmp_path, names, pattern, files
):
    for name in files:
        write_file(tmp_path / name, DEPTH)
    found = PredictionFolder(tmp_path, names, pattern=pattern).files
    assert found == [tmp_path / name for name in files]


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
        (["out/hall/0001.npy"], "3 of 3 images"),
        (["0002.npy"], r"2 of 3 images have no prediction .*kitchen/0001.*--allow-missing"),
        (["kitchen/0001.npy", "kitchen/0001.png"], r"0001.npy and .*0001.png are both for"),
        (["0001.npy", "0002.npy"], r"0001.npy would be the prediction for .*kitchen.* and .*hall"),
    ],
)
def test_files_that_do_not_fit_the_images_are_refused(tmp_path, files, message):
    for name in files:
        write_file(tmp_path / name, DEPTH)
    with pytest.raises(DataError, match=message):
        PredictionFolder(tmp_path, NAMES)


def test_missing_files_can_be_allowed(tmp_path):
    write_file(tmp_path / "0002.npy", DEPTH)
    found = PredictionFolder(tmp_path, NAMES, allow_missing=True)
    assert found.missing == NAMES[:2]
    assert found(2).shape == DEPTH.shape
