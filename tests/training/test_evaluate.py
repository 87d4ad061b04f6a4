import json
import math
import shutil

import cv2
import numpy as np
import pytest
import torch

from depthbal import load_predictor
from depthbal.data import DepthDataModule, RoomsDataModule
from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.evaluation import DepthBins, summarise
from depthbal.priors import Histogram
from depthbal.training.evaluate import evaluate_run
from tests.data.make_files import SMALL, write_nyud2
from tests.training.helpers import tiny_config, train_tiny

METRICS = {"rmse", "mse", "mae", "abs_rel", "log10", "delta1", "delta2", "delta3", "bias", "count"}


@pytest.fixture(scope="module")
def metrics(finished_run):
    return json.loads((finished_run / "metrics.json").read_text())


def test_metrics_have_the_documented_structure(metrics):
    top = {"protocol", "overall", "many", "medium", "few", "bins", "all_pixels"}
    assert top | {"per_image_mean", "per_bin_mean", "readout"} <= set(metrics)
    assert {"overall", "many", "medium", "few", "bins"} <= set(metrics["all_pixels"])
    assert set(metrics["readout"]) == {"raw", "clamped", "mean"}
    for group in ("overall", "many", "medium", "few"):
        assert set(metrics[group]) >= METRICS
    first = metrics["bins"][0]
    assert {"bin", "from_m", "to_m", "count", "images", "rmse"} <= set(first)
    assert (first["bin"], first["from_m"]) == (7, 0.7)
    assert metrics["protocol"]["checkpoint"] == "last"
    assert metrics["protocol"]["name"] == "nyud2_dir"
    assert metrics["protocol"]["mask"]["seed"] == 0
    assert metrics["protocol"]["data"]["class"] == "RoomsDataModule"


def test_all_pixels_agree_with_predictions_made_one_by_one(finished_run, metrics):
    data = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    data.setup("test")
    predictor = load_predictor(finished_run)
    errors = []
    for index in range(4):
        image, depth = data.test_set.source.load(index)
        errors.append((predictor.predict(image) - depth)[depth >= 0.7])
    expected = math.sqrt(np.mean(np.concatenate(errors).astype(np.float64) ** 2))
    assert metrics["all_pixels"]["overall"]["rmse"] == pytest.approx(expected, rel=1e-4)
    assert metrics["all_pixels"]["overall"]["count"] == sum(map(len, errors))


def test_the_balanced_mask_holds_equally_many_pixels_of_every_bin(metrics):
    counts = {row["count"] for row in metrics["bins"] if row["count"]}
    assert counts == {metrics["protocol"]["mask"]["per_bin"]}


def test_sums_per_image_give_the_same_numbers_again(finished_run, metrics):
    arrays = np.load(finished_run / "per_image.npz", allow_pickle=False)
    bins = DepthBins(arrays["edges"], arrays["shots"].tolist(), scored=arrays["scored"])
    assert arrays["sums_mask"].shape[0] == 4
    again = summarise(arrays["sums_mask"], bins)
    assert again["few"]["rmse"] == metrics["few"]["rmse"]
    assert summarise(arrays["sums_all"], bins)["overall"] == metrics["all_pixels"]["overall"]


def test_shots_come_from_the_training_histogram(finished_run, metrics):
    histogram = Histogram.load(finished_run / "histogram.json")
    share = histogram.counts / histogram.counts.sum()
    expected = (np.flatnonzero(share > 0.0074) + 7).tolist()
    assert metrics["protocol"]["bins"]["shots"]["many"] == expected


def test_evaluation_repeats_what_training_wrote_and_never_refits(run, metrics, monkeypatch):
    monkeypatch.setattr(DepthDataModule, "train_histogram", lambda *_: pytest.fail("refitted"))
    (run / "metrics.json").unlink()
    assert evaluate_run(run) == metrics
    assert json.loads((run / "metrics.json").read_text()) == metrics


def test_the_best_checkpoint_is_evaluated_on_request(run):
    best = run / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    for key, value in content["state_dict"].items():
        if key.startswith("model.") and value.is_floating_point():
            content["state_dict"][key] = torch.zeros_like(value)
    torch.save(content, best)
    result = evaluate_run(run, "best")
    assert result["protocol"]["checkpoint"] == "best"
    # a network of zeros predicts 0 m
    assert result["readout"]["raw"]["overall"]["abs_rel"] == pytest.approx(1.0)


def test_eigen_scores_whole_images_averaged_over_images(run, metrics):
    result = evaluate_run(run, protocol="eigen")
    data = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    data.setup("test")
    predictor = load_predictor(run)
    scores = []
    for index in range(4):
        image, depth = data.test_set.source.load(index)
        inside = np.zeros_like(depth, dtype=bool)
        inside[2:24, 2:30] = True  # [45:471, 41:601] of 480 x 640, at a twentieth
        inside &= (depth > 1e-3) & (depth < 10)
        preds = np.clip(predictor.predict(image), 1e-3, 10)
        scores.append(math.sqrt(np.mean((preds - depth)[inside].astype(np.float64) ** 2)))
    assert result["overall"]["rmse"] == pytest.approx(np.mean(scores), rel=1e-4)
    assert json.loads((run / "metrics_eigen.json").read_text()) == result
    assert json.loads((run / "metrics.json").read_text()) == metrics


def test_examples_show_image_truth_and_prediction(finished_run):
    path = sorted((finished_run / "predictions").glob("*.png"))[0]
    assert cv2.imread(str(path)).shape == (24, 3 * 32, 3)


def test_a_run_without_best_checkpoint_or_histogram_is_named(run):
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(RunFolderError, match="validation split"):
        evaluate_run(run, "best")
    (run / "histogram.json").unlink()
    with pytest.raises(RunFolderError, match=r"histogram\.json"):
        evaluate_run(run)
    with pytest.raises(RunFolderError, match="no run folder"):
        evaluate_run(run / "missing")


@pytest.fixture(scope="module")
def nyud2_run(tmp_path_factory, cache_folder):
    """A run on files in the published layout, with what it was trained on."""
    folder = tmp_path_factory.mktemp("nyud2")
    data = write_nyud2(folder / "root", scenes=2, n_test=3)
    section = {
        "class_path": "depthbal.data.NYUD2DataModule",
        "init_args": {"root": str(folder / "root"), "val_fraction": 0.0, **SMALL},
    }
    config = tiny_config(folder / "tiny.yaml", data=section)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        return train_tiny(config, folder / "run", "--trainer.max_epochs", "1"), data


def test_the_benchmark_is_scored_with_its_official_shots(nyud2_run):
    metrics = json.loads((nyud2_run[0] / "metrics.json").read_text())
    shots = metrics["protocol"]["bins"]["shots"]
    assert [len(shots[name]) for name in ("many", "medium", "few")] == [39, 15, 39]


def test_the_official_mask_is_used_where_it_lies_beside_the_data(nyud2_run, tmp_path):
    run = shutil.copytree(nyud2_run[0], tmp_path / "run")
    data = shutil.copytree(nyud2_run[1], tmp_path / "root" / "data")
    mask = np.zeros((3, 20, 28), dtype=np.uint8)
    mask[:, 5, 4:24] = 1
    np.save(data / "test_balanced_mask.npy", mask)
    metrics = evaluate_run(run, data_overrides=["--data.root", str(tmp_path / "root")])
    assert metrics["overall"]["count"] == 3 * 20
    assert metrics["protocol"]["mask"]["source"] == "test_balanced_mask.npy"
    assert metrics["protocol"]["data"]["source"] == str(tmp_path / "root")


def test_the_best_checkpoint_leaves_the_last_epochs_files_alone(run):
    names = ("metrics.json", "per_image.npz", "predictions/test_00000.png")
    before = [(run / name).read_bytes() for name in names]
    result = evaluate_run(run, "best")
    evaluate_run(run, "best", "eigen")
    assert [(run / name).read_bytes() for name in names] == before
    assert json.loads((run / "metrics_best.json").read_text()) == result
    for name in ("per_image_best.npz", "metrics_eigen_best.json", "per_image_eigen_best.npz"):
        assert (run / name).is_file()
    assert len(list((run / "predictions_best").glob("*.png"))) == 4
    assert not (run / "metrics_eigen.json").exists()


class Spoilt:
    """A test split whose second pair is damaged beyond what the first look at the data samples."""

    def __init__(self, source, depth):
        self.source = source
        self.depth = depth

    def __len__(self):
        return len(self.source)

    def name(self, index):
        return self.source.name(index)

    def group(self, index):
        return self.source.group(index)

    def load(self, index):
        image, depth = self.source.load(index)
        return image, self.depth(depth) if index == 1 else depth


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda depth: np.where(depth > 2, np.nan, depth).astype(np.float32), "NaN"),
        (lambda depth: depth[:-2], "22 x 32"),
        (lambda depth: depth * 1000, "unit"),
    ],
)
def test_eigen_refuses_a_damaged_pair_by_name(run, damage, message):
    data = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    data.setup("test")
    data.test_set.source = Spoilt(data.test_set.source, damage)
    with pytest.raises(DataError, match=f"00001.*{message}"):
        evaluate_run(run, protocol="eigen", datamodule=data)


def test_a_run_that_predicts_something_else_is_refused_before_its_data_are_read(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["protocol"]["label"] = {"name": "age", "unit": "years"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ConfigError, match="predicts age; this tool is for networks of depth"):
        evaluate_run(run)
