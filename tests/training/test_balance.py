"""`depthbal balance` and what evaluate, predict and export do with its file."""

import json

import cv2
import numpy as np
import pytest
import torch

from depthbal import load_predictor
from depthbal.evaluation import Scores
from depthbal.export import open_graph
from depthbal.losses.posthoc import BalanceMap
from depthbal.training import evaluate_run
from tests.training.helpers import command, metrics_of, rooms_of_the_test

MORE = ("--data.n_val", "16", "--data.n_test", "16", "--device", "cpu")


@pytest.fixture(scope="module")
def balanced(mse_run, tmp_path_factory):
    """A map from 16 validation images, whatever it gains."""
    out = tmp_path_factory.mktemp("balance") / "mine.json"
    assert command("balance", mse_run, "--out", out, "--tau", 0.5, "--force", *MORE) == 0
    return out


def raw_depths(run):
    predictor = load_predictor(run)
    predictor.readout = "raw"
    return [(predictor.predict(image), depth) for image, depth in rooms_of_the_test()]


def test_its_errors_are_those_of_an_evaluation_at_the_truths_size(mse_run, tmp_path, capsys):
    arguments = ["--split", "test", "--force", "--out", tmp_path / "b.json", *MORE]
    assert command("balance", mse_run, *arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    facts = BalanceMap.load(tmp_path / "b.json").facts
    assert "Chosen: " in printed
    assert f"falls by {100 * facts['fall']:.1f} %" in printed
    assert "calibrated, tau 0.3" in printed
    assert "sigma" in printed  # the run knows its training histogram
    result, _ = evaluate_run(mse_run, overrides=MORE[:4], seed=1)  # another folder than the run's
    for group, found in facts["before"].items():
        expected = result["all_pixels"]["per_bin_mean"][group]["rmse"]
        assert found == pytest.approx(expected, rel=5e-3), group
    assert (facts["images"], facts["scenes"], facts["split"]) == (16, 16, "test")


def test_a_run_is_evaluated_balanced_and_says_with_what(mse_run, balanced, capsys):
    assert command("evaluate", mse_run, "--balance", balanced, "--device", "cpu") == 0
    assert "balanced afterwards (calibrated, tau 0.5)" in " ".join(capsys.readouterr().out.split())
    folder, balance = mse_run / "eval" / "balance_mine", BalanceMap.load(balanced)
    metrics = metrics_of(folder)
    squared, inside, count = 0.0, 0, 0
    for raw, depth in raw_depths(mse_run):
        counted = depth >= 0.7
        squared += np.sum((balance(raw) - depth)[counted].astype(float) ** 2)
        lower, upper = (end.numpy() for end in balance.interval(torch.from_numpy(raw)))
        inside += int(((lower <= depth) & (depth <= upper))[counted].sum())
        count += int(counted.sum())
    assert metrics["all_pixels"]["overall"]["rmse"] == pytest.approx((squared / count) ** 0.5, 1e-3)
    found = metrics["calibration"]
    assert found["all"]["overall"]["coverage"] == pytest.approx(inside / count, abs=0.01)
    assert "given the prediction" in found["interval"]
    told = metrics["protocol"]["posthoc"]
    assert (told["way"], told["tau"], told["split"]) == ("calibration", 0.5, "val")
    assert Scores.load(folder).compute()["overall"] == metrics["overall"]
    assert (folder / "report.html").is_file()


def test_it_predicts_and_is_exported_balanced(mse_run, balanced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image, _ = next(iter(rooms_of_the_test()))
    cv2.imwrite("room.png", image[..., ::-1])
    predictor = load_predictor(mse_run)
    predictor.readout = "raw"
    expected = BalanceMap.load(balanced)(predictor.predict(image))
    for source in (mse_run, mse_run / "checkpoints" / "last.ckpt"):
        options = ["--balance", balanced, "--device", "cpu", "--overwrite"]
        assert command("predict", source, "room.png", *options) == 0
        written = cv2.imread("room_depth.png", cv2.IMREAD_UNCHANGED) / 1000
        assert np.abs(written - expected).max() < 0.0005 + 1e-5
    options = ["--balance", balanced, "--image", "room.png", "--format", "torch"]
    assert command("export", mse_run, *options, "--out", "model.pt2") == 0
    found = open_graph("torch", tmp_path / "model.pt2")(image[None])[0]
    assert np.abs(found - expected).max() < 2e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test", *MORE], "4 of 4 test images were calibrated on (rooms/test/00000"),
        ([], "10 labelled images or more, got 4"),
        (["--tau", "1.5", *MORE], "expected tau in [0, 1], got 1.5"),
        (["--sigma", "-1", *MORE], "positive noise_sigma"),
    ],
)
def test_what_is_unfit_is_not_written(arguments, message, mse_run, tmp_path, capsys):
    out = tmp_path / "balance.json"
    assert command("balance", mse_run, "--out", out, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_uncertain_gain_is_not_written(mse_run, tmp_path, monkeypatch, capsys):
    depths = np.random.default_rng(0).uniform(0.8, 9.9, (12, 8, 8))
    exact = [(depth, depth, None, f"image {i}", "") for i, depth in enumerate(depths)]
    monkeypatch.setattr("depthbal.commands.balance.run_samples", lambda *_: exact)
    assert command("balance", mse_run, "--tau", 0.5, "--out", tmp_path / "balance.json") == 2
    assert "holds 0. Nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "balance.json").exists()


def test_maps_and_runs_that_do_not_fit_each_other_are_refused(
    mse_run, finished_run, balanced, tmp_path, capsys
):
    def refused(name, *arguments):
        assert command(name, *arguments, "--device", "cpu") == 2
        return capsys.readouterr().err

    assert "GAILoss, which balances already" in refused("balance", finished_run, "--out", "b.json")
    assert "GAILoss, which balances" in refused("evaluate", finished_run, "--balance", balanced)
    assert "exists" in refused("balance", mse_run, "--out", balanced)
    content = json.loads(balanced.read_text())
    ages, seen = tmp_path / "ages.json", tmp_path / "seen.json"
    ages.write_text(json.dumps({**content, "label": ["age", "years"]}))
    message = "balances age in years, these predictions are depth in m"
    assert message in refused("evaluate", mse_run, "--balance", ages)
    assert message in refused("predict", mse_run, "room.png", "--balance", ages)
    content["facts"]["names"][0] = "rooms/test/00002"
    seen.write_text(json.dumps(content))
    assert "1 of 4 test images were calibrated on" in refused(
        "evaluate", mse_run, "--balance", seen
    )
    assert not (mse_run / "eval" / "balance_seen").exists()
    assert command("evaluate", mse_run, "--balance", seen, "--device", "cpu", "--force") == 0
