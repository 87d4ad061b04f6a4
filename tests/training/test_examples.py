import json
import math

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from depthbal import load_predictor
from depthbal.data import RoomsDataModule
from depthbal.errors import DataError
from depthbal.losses import MSELoss
from depthbal.predictor import Predictor
from depthbal.training.evaluate import evaluate_run
from depthbal.training.examples import save_pictures
from depthbal.training.scoring import Crops, WholeImages, predicted
from tests.training.helpers import DropoutNet

SHOWN = {"best", "median", "worst", "rare"}


@pytest.fixture(scope="module")
def data():
    rooms = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    rooms.setup("test")
    return rooms


def check_content(arrays, run, data, readout_range, inside):
    """Compare the examples with predictions made from the files."""
    assert set(arrays["reason"].tolist()) <= SHOWN
    assert len(set(arrays["index"].tolist())) == len(arrays["index"]) >= 4
    predictor = load_predictor(run)
    for number, index in enumerate(arrays["index"].tolist()):
        image, depth = data.test_set.source.load(index)
        assert arrays["name"][number] == f"rooms/test/{index:05d}"
        np.testing.assert_allclose(arrays[f"truth_{number:02d}"], depth, rtol=0, atol=6e-4)
        assert np.abs(arrays[f"image_{number:02d}"].astype(int) - image).max() <= 1
        preds = predictor.predict(image).clip(*readout_range)
        np.testing.assert_allclose(arrays[f"pred_{number:02d}"], preds, rtol=1e-4, atol=6e-4)
        counted = inside(depth)
        errors = (preds - depth)[counted].astype(np.float64)
        assert arrays["rmse"][number] == pytest.approx(math.sqrt(np.mean(errors**2)), rel=1e-4)
        assert arrays[f"image_{number:02d}"].dtype == np.uint8
        assert arrays[f"pred_{number:02d}"].dtype == np.float32


def test_examples_hold_image_truth_prediction_and_error(finished_run, data):
    with np.load(finished_run / "examples.npz", allow_pickle=False) as arrays:
        check_content(arrays, finished_run, data, (0, np.inf), lambda depth: depth >= 0.7)


def test_eigens_examples_are_the_clamped_whole_images(run, data):
    evaluate_run(run, protocol="eigen")

    def inside(depth):
        crop = np.zeros(depth.shape, bool)
        crop[2:24, 2:30] = True
        return crop & (depth > 1e-3) & (depth < 10)

    with np.load(run / "examples_eigen.npz", allow_pickle=False) as arrays:
        check_content(arrays, run, data, (1e-3, 10), inside)


def test_scenes_and_joint_histograms_are_written_with_the_sums(finished_run, data):
    with np.load(finished_run / "per_image.npz", allow_pickle=False) as arrays:
        source = data.test_set.source
        assert arrays["groups"].tolist() == [source.group(index) for index in range(4)]
        counts = arrays["sums_all"][..., arrays["terms"].tolist().index("count")].sum(0)
        for readout in ("", "_raw", "_clamped"):
            assert arrays[f"joint_all{readout}"].sum(1).tolist() == counts.tolist()
        edges, joint = arrays["edges"], arrays["joint_all_raw"]
    predictor = load_predictor(finished_run)
    predictor.readout = "raw"
    preds = []
    for index in range(4):
        image, depth = source.load(index)
        preds.append(predictor.predict(image)[depth >= 0.7])
    expected = np.histogram(np.concatenate(preds), [-np.inf, *edges, np.inf])[0]
    # predictions made one by one may differ in the last digit and so move by one bin
    assert np.abs(joint.sum(0) - expected).sum() <= 4
    assert joint.sum() == sum(map(len, preds))


def test_coverage_is_that_of_scipys_truncated_normal(finished_run, data):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    predictor = load_predictor(finished_run)
    sigma = float(predictor.criterion.noise_sigma)
    predictor.readout = "raw"
    inside = []
    for index in range(4):
        image, depth = data.test_set.source.load(index)
        p, y = predictor.predict(image)[depth >= 0.7].astype(float), depth[depth >= 0.7]
        share = stats.truncnorm.cdf(y, (0.7 - p) / sigma, (10 - p) / sigma, loc=p, scale=sigma)
        inside.append(np.abs(share - 0.5) <= 0.6826895 / 2)
    found = metrics["calibration"]["all"]["overall"]
    inside = np.concatenate(inside)
    assert found["count"] == len(inside)
    assert found["coverage"] == pytest.approx(inside.mean(), abs=3 / len(inside))
    assert metrics["calibration"]["mask"]["overall"]["count"] == metrics["overall"]["count"]


def test_a_loss_without_sigma_promises_no_interval(data):
    spec = {"short_side": None, "mean": [0.5] * 3, "std": [0.2] * 3}
    predictor = Predictor(DropoutNet(), MSELoss(), spec).eval()
    batch = Crops(data, predictor).one(0)
    raw = predicted(predictor, batch, ["00000"])
    assert predictor.interval(raw) is None


def test_nothing_is_kept_larger_than_320_pixels(monkeypatch, run, data):
    monkeypatch.setattr("depthbal.training.examples.LONGEST_SIDE", 20)
    evaluate_run(run)
    with np.load(run / "examples.npz", allow_pickle=False) as arrays:
        for part, size in (("image", (15, 20, 3)), ("truth", (15, 20)), ("pred", (15, 20))):
            assert arrays[f"{part}_00"].shape == size
        _, depth = data.test_set.source.load(int(arrays["index"][0]))
        assert set(np.unique(arrays["truth_00"])) <= set(np.unique(depth.round(3)))


def test_pictures_show_the_examples_and_replace_older_ones(tmp_path, finished_run):
    (tmp_path / "test_00099.png").write_bytes(b"of an earlier evaluation")
    (tmp_path / "mine.png").write_bytes(b"kept")
    with np.load(finished_run / "examples.npz", allow_pickle=False) as arrays:
        examples = dict(arrays)
    save_pictures(tmp_path, examples)
    indices = sorted(examples["index"].tolist())
    expected = [f"test_{index:05d}.png" for index in indices]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.png", *expected]
    picture = cv2.imread(str(tmp_path / f"test_{examples['index'][0]:05d}.png"))
    assert np.array_equal(picture[:, :32, ::-1], examples["image_00"])


@pytest.mark.parametrize("split", [Crops, WholeImages])
def test_one_image_is_as_it_was_in_its_batch(split, data):
    spec = {"short_side": None, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    scored = split(data, Predictor(DropoutNet(), None, spec))
    for batch in scored:
        for place, index in enumerate(batch.indices):
            alone = scored.one(index)
            assert torch.equal(alone.images[0], batch.images[place])
            assert torch.equal(alone.target[0], batch.target[place])


class Spoilt(torch.nn.Module):
    """A network whose second image is NaN."""

    def forward(self, images):
        out = images.mean(1, keepdim=True) + 3
        if len(out) > 1:
            out[1, 0, 3, 3] = float("nan")
        return out


@pytest.mark.parametrize("balanced_afterwards", [False, True])
def test_predictions_that_are_nan_name_their_image(run, data, balanced_afterwards, monkeypatch):
    predictor = load_predictor(run)
    predictor.model = Spoilt()
    if balanced_afterwards:
        predictor.posthoc = object()
    monkeypatch.setattr("depthbal.training.evaluate.load_predictor", lambda *_, **__: predictor)
    with pytest.raises(DataError, match="rooms/test/00001"):
        evaluate_run(run)
