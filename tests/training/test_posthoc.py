"""Balancing a run's predictions afterwards, from the run folder to the metrics."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from depthbal import load_predictor
from depthbal.data import RoomsDataModule
from depthbal.errors import ConfigError, RunFolderError
from depthbal.losses import balance_predictions
from depthbal.priors import Histogram
from depthbal.training.evaluate import evaluate_run
from depthbal.training.pictures import save_picture
from depthbal.training.posthoc import posthoc_sigma
from depthbal.training.predict_command import predict
from tests.training.helpers import tiny_config, train_tiny

RANGE = (0.7, 10.0)
MSE = {"class_path": "depthbal.losses.MSELoss", "init_args": {"label_range": list(RANGE)}}


@pytest.fixture(scope="module")
def mse_run(tmp_path_factory, cache_folder):
    """A run of the squared error; tests only add evaluations to it."""
    folder = tmp_path_factory.mktemp("mse")
    config = tiny_config(folder / "tiny.yaml", model={"criterion": MSE})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        return train_tiny(config, folder / "run")


def rmse_by_hand(run, read):
    """RMSE over all test pixels of the raw predictions, made one by one, read by a function."""
    data = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    data.setup("test")
    predictor = load_predictor(run)
    predictor.readout = "raw"
    errors = []
    for index in range(4):
        image, depth = data.test_set.source.load(index)
        errors.append((read(torch.from_numpy(predictor.predict(image))) - depth)[depth >= 0.7])
    return math.sqrt(np.mean(np.concatenate(errors).astype(np.float64) ** 2))


def test_scores_are_those_of_the_predictions_balanced_by_hand(mse_run):
    before = {path: path.read_bytes() for path in mse_run.rglob("*") if path.is_file()}
    metrics = evaluate_run(mse_run, posthoc=0.8)
    assert {path: path.read_bytes() for path in before} == before
    histogram = Histogram.load(mse_run / "histogram.json")

    def located(raw):
        return balance_predictions(raw, histogram, 0.8).numpy()

    expected = {
        "mean": lambda raw: balance_predictions(raw, histogram, 0.8, RANGE).numpy(),
        "raw": located,
        "clamped": lambda raw: located(raw).clip(*RANGE),
    }
    for readout, read in expected.items():
        found = metrics["readout"][readout]["all_pixels"]["overall"]["rmse"]
        assert found == pytest.approx(rmse_by_hand(mse_run, read), rel=1e-4)
    assert metrics["all_pixels"]["overall"] != json.loads(before[mse_run / "metrics.json"])


def test_coverage_is_that_of_scipys_truncated_normal_around_the_balanced_location(mse_run):
    assert json.loads((mse_run / "metrics.json").read_text())["calibration"] is None
    found = evaluate_run(mse_run, posthoc=0.9)["calibration"]["all"]["overall"]
    histogram = Histogram.load(mse_run / "histogram.json")
    data = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    data.setup("test")
    predictor = load_predictor(mse_run)
    predictor.readout = "raw"
    covered = []
    for index in range(4):
        image, depth = data.test_set.source.load(index)
        raw, truth = predictor.predict(image)[depth >= 0.7], depth[depth >= 0.7]
        p = balance_predictions(torch.from_numpy(raw).double(), histogram, 0.9).numpy()
        ends = (RANGE[0] - p) / 0.9, (RANGE[1] - p) / 0.9
        share = truncnorm.cdf(truth.astype(float), *ends, loc=p, scale=0.9)
        covered.append(np.abs(share - 0.5) <= 0.6826895 / 2)
    inside = np.concatenate(covered)
    assert found["count"] == len(inside)
    assert found["coverage"] == pytest.approx(inside.mean(), abs=3 / len(inside))


def test_it_stands_beside_the_other_evaluations_and_says_what_it_is(mse_run):
    metrics = evaluate_run(mse_run, "best", "eigen", posthoc=1.25)
    file = mse_run / "metrics_eigen_best_posthoc_1.25.json"
    assert json.loads(file.read_text()) == metrics
    for kind in ("per_image", "examples"):
        assert (mse_run / f"{kind}_eigen_best_posthoc_1.25.npz").is_file()
    found = metrics["protocol"]["posthoc"]
    assert found["noise_sigma"] == 1.25
    assert found["sigma_from"] == "given"
    assert "histogram.json" in found["prior"]
    assert metrics["protocol"]["noise_sigma"] == 1.25
    plain = json.loads((mse_run / "metrics.json").read_text())["protocol"]
    assert not {"posthoc", "noise_sigma"} & set(plain)


def test_its_examples_show_the_balanced_depth(mse_run):
    evaluate_run(mse_run, posthoc=3.0)
    plain = mse_run / "predictions" / "test_00000.png"
    balanced = mse_run / "predictions_posthoc_3" / "test_00000.png"
    assert plain.read_bytes() != balanced.read_bytes()


def test_auto_takes_the_validation_error_of_the_checkpoints_epoch(mse_run):
    rows = (mse_run / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    table = [dict(zip(columns, row.split(","), strict=True)) for row in rows[1:]]
    errors = {row["epoch"]: float(row["val/rmse"]) for row in table if row["val/rmse"]}
    chosen = posthoc_sigma(mse_run, "last", "auto")
    assert chosen.noise_sigma == pytest.approx(errors["1"], rel=5e-3)
    assert "epoch 1" in chosen.source
    metrics = evaluate_run(mse_run, posthoc="auto")
    assert metrics["protocol"]["posthoc"]["noise_sigma"] == chosen.noise_sigma
    assert (mse_run / f"metrics_posthoc_{chosen.noise_sigma:g}.json").is_file()


def test_auto_without_a_validation_error_asks_for_a_sigma(run):
    (run / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match=r"metrics\.csv.*--posthoc SIGMA"):
        evaluate_run(run, posthoc="auto")


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_not_positive_is_refused(mse_run, sigma):
    with pytest.raises(ConfigError, match="positive sigma in metres"):
        evaluate_run(mse_run, posthoc=sigma)


def test_a_balanced_run_is_refused(run):
    with pytest.raises(ConfigError, match="GAILoss, which balances already"):
        evaluate_run(run, posthoc=1.0)
    assert not list(run.glob("*posthoc*"))


def test_a_run_without_or_with_a_torn_histogram_is_refused(mse_run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    copy = tmp_path / "checkpoints" / "last.ckpt"
    copy.write_bytes((mse_run / "checkpoints" / "last.ckpt").read_bytes())
    for path in (copy, tmp_path):
        with pytest.raises(ConfigError, match=r"histogram\.json"):
            load_predictor(path, posthoc_sigma=1.0)
    (tmp_path / "histogram.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"histogram\.json cannot be used"):
        load_predictor(tmp_path, posthoc_sigma=1.0)
    (tmp_path / "histogram.json").write_text((mse_run / "histogram.json").read_text())
    assert load_predictor(copy, posthoc_sigma=1.0).posthoc.noise_sigma == 1.0


def test_prediction_says_which_sigma_it_balanced_with(mse_run, tmp_path, capsys):
    picture = tmp_path / "grey.png"
    save_picture(picture, np.full((24, 32, 3), 120, dtype=np.uint8))
    predict([str(mse_run), str(picture), "--out", str(tmp_path), "--posthoc", "auto"])
    chosen = posthoc_sigma(mse_run, "last", "auto")
    assert f"sigma {chosen.noise_sigma:g} m ({chosen.source})" in capsys.readouterr().out
