"""Example images: what was seen, what is true, what was predicted."""

import math

import cv2
import numpy as np
import pytest

from depthbal import load_predictor
from depthbal.training import evaluate_run
from tests.training.helpers import in_eigen_crop, rooms_of_the_test


def check_content(folder, run, limits, inside):
    """Compare the examples with predictions made from the files."""
    with np.load(folder / "examples.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays["reason"].tolist()) <= {"best", "median", "worst", "rare"}
    assert len(set(arrays["index"].tolist())) == len(arrays["index"]) >= 4
    predictor, rooms = load_predictor(run), rooms_of_the_test()
    for number, index in enumerate(arrays["index"].tolist()):
        image, depth = rooms[index]
        assert arrays["name"][number] == f"rooms/test/{index:05d}"
        np.testing.assert_allclose(arrays[f"truth_{number:02d}"], depth, rtol=0, atol=6e-4)
        assert np.abs(arrays[f"image_{number:02d}"].astype(int) - image).max() <= 1
        preds = predictor.predict(image).clip(*limits)
        np.testing.assert_allclose(arrays[f"pred_{number:02d}"], preds, rtol=1e-4, atol=6e-4)
        errors = (preds - depth)[inside(depth)].astype(np.float64)
        assert arrays["rmse"][number] == pytest.approx(math.sqrt(np.mean(errors**2)), rel=1e-4)
        assert arrays[f"image_{number:02d}"].dtype == np.uint8
        assert arrays[f"pred_{number:02d}"].dtype == np.float32


def test_examples_hold_image_truth_prediction_and_error_those_of_eigen_clamped(run):
    check_content(run, run, (0, np.inf), lambda depth: depth >= 0.7)
    check_content(evaluate_run(run, protocol="eigen")[1], run, (1e-3, 10), in_eigen_crop)


def test_nothing_is_kept_larger_than_320_pixels(monkeypatch, run):
    monkeypatch.setattr("depthbal.examples.LONGEST_SIDE", 20)
    evaluate_run(run)
    with np.load(run / "examples.npz", allow_pickle=False) as arrays:
        for part, size in (("image", (15, 20, 3)), ("truth", (15, 20)), ("pred", (15, 20))):
            assert arrays[f"{part}_00"].shape == size
        _, depth = rooms_of_the_test()[int(arrays["index"][0])]
        assert set(np.unique(arrays["truth_00"])) <= set(np.unique(depth.round(3)))


def test_pictures_show_the_examples_and_replace_older_ones(run):
    folder = run / "predictions"
    (folder / "test_00099.png").write_bytes(b"of an earlier evaluation")
    (folder / "mine.png").write_bytes(b"kept")
    evaluate_run(run)
    with np.load(run / "examples.npz", allow_pickle=False) as arrays:
        examples = dict(arrays)
    expected = [f"test_{index:05d}.png" for index in sorted(examples["index"].tolist())]
    assert sorted(path.name for path in folder.iterdir()) == ["mine.png", *expected]
    picture = cv2.imread(str(folder / f"test_{examples['index'][0]:05d}.png"))
    assert picture.shape == (24, 3 * 32, 3)
    assert np.array_equal(picture[:, :32, ::-1], examples["image_00"])
