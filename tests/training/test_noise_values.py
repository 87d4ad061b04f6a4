import csv
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss
from depthbal.losses.noise import DepthNoise, NoiseModule
from depthbal.losses.noise_guard import check_noise
from depthbal.priors import Histogram
from depthbal.reports import load_results
from depthbal.training.evaluate import evaluate_run
from depthbal.training.noise_values import (
    depth_noise,
    noise_facts,
    noise_values,
    save_noise_picture,
)
from depthbal.training.task import DepthTask
from depthbal.training.train import train
from tests.training.helpers import DropoutNet, checkpoint_of, tiny_config, train_tiny

RANGE = (0.7, 10.0)
EDGES = np.linspace(*RANGE, 94)
LONG_TAIL = Histogram(EDGES, 1e6 * np.exp(-(EDGES[:-1] + EDGES[1:]) / 3))
STEEP = {"init_noise_sigma": 0.1, "label_range": list(RANGE)}


class Proportional(NoiseModule):
    """A noise of the user's own, under which far labels have no location."""

    depends_on_preds = True

    def forward(self, preds):
        return (0.25 * preds).clamp(min=1e-3)


def steep_config(path, **criterion):
    """A tiny training whose noise starts steeper than every depth can be predicted with."""
    noise = {
        "class_path": "depthbal.losses.noise.DepthNoise",
        "init_args": {"noise_sigma": 0.1, "slope": 0.5, "max_sigma": 100.0},
    }
    section = {"class_path": "depthbal.losses.BMCLoss", "init_args": {**STEEP, "noise": noise}}
    return tiny_config(path, model={"criterion": section, **criterion})


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_values_are_the_formulas():
    values = noise_values(DepthNoise(0.5, slope=0.2, max_sigma=1.5), RANGE)
    a = math.log(math.expm1(0.5))
    expected = [math.log1p(math.exp(a + 0.2 * p)) for p in (0.7, 5.35)]
    assert values["sigma_near"] == pytest.approx(expected[0])
    assert values["sigma_middle"] == pytest.approx(expected[1])
    assert values["sigma_far"] == pytest.approx(1.5)
    assert (values["a"], values["b"]) == pytest.approx((a, 0.2))


@pytest.mark.parametrize("criterion", [MSELoss(), torch.nn.L1Loss(), GAILoss(noise="learned")])
def test_one_sigma_for_all_is_no_depth_noise(criterion):
    assert depth_noise(criterion) is None


def test_the_picture_is_written_with_and_without_the_histogram(tmp_path):
    for name, histogram in (("with", LONG_TAIL), ("without", None)):
        save_noise_picture(tmp_path / f"{name}.png", Proportional(), RANGE, histogram)
    both = [cv2.imread(str(tmp_path / f"{name}.png")) for name in ("with", "without")]
    assert both[0].shape == both[1].shape
    assert (both[0] != both[1]).any()
    curve = (both[1] == (0x52, 0x4E, 0xC4)).all(axis=2)  # BGR
    heights = [np.flatnonzero(column).mean() for column in curve.T if column.any()]
    assert heights[-1] < heights[0] - 20  # sigma grows to the right


def test_training_projects_logs_draws_and_saves_the_noise(tmp_path, caplog):
    run = train_tiny(steep_config(tmp_path / "tiny.yaml"), tmp_path / "run")
    assert "b = 0.5 was reduced" in caplog.text
    state = checkpoint_of(run)["state_dict"]
    noise = DepthNoise(0.1, slope=0.5, max_sigma=100.0)
    for name in ("intercept", "slope"):
        getattr(noise, name).data.copy_(state[f"criterion.noise.{name}"])
    assert check_noise(noise, Histogram.load(run / "histogram.json"), RANGE).passes
    (last,) = [row for row in rows(run) if row["train/noise_b"] and row["epoch"] == "1"]
    expected = noise_values(noise, RANGE)
    assert set(expected) == {"sigma_near", "sigma_middle", "sigma_far", "a", "b"}
    for name, value in expected.items():
        assert float(last[f"train/noise_{name}"]) == pytest.approx(value, rel=1e-5)
    assert cv2.imread(str(run / "noise.png")) is not None


def test_a_resumed_training_guards_with_the_runs_histogram(tmp_path):
    config = steep_config(tmp_path / "tiny.yaml")
    run = train_tiny(config, tmp_path / "run", "--trainer.max_epochs=1")
    content = checkpoint_of(run)
    content["state_dict"]["criterion.noise.slope"].fill_(0.5)
    torch.save(content, run / "checkpoints" / "last.ckpt")
    train(["--resume", str(run), "--trainer.max_epochs=2"], config)
    assert checkpoint_of(run)["state_dict"]["criterion.noise.slope"] < 0.45
    assert (run / "noise.png").is_file()


def test_one_sigma_leaves_no_picture(finished_run):
    assert not (finished_run / "noise.png").exists()
    assert any(row["train/noise_sigma"] for row in rows(finished_run))


def test_a_noise_that_fails_the_same_way_is_reported_once(caplog):
    task = DepthTask(DropoutNet(), BNILoss(noise=Proportional()))
    task.initialise(LONG_TAIL)
    for _ in range(3):
        task.guard_noise()
    assert caplog.text.count("Proportional") == 1


def test_the_loss_without_label_range_is_guarded_over_the_tasks_depths():
    noise = DepthNoise(0.1, slope=0.5, max_sigma=100.0)
    task = DepthTask(DropoutNet(), BMCLoss(noise=noise), min_depth=0.7, max_depth=10.0)
    task.initialise(LONG_TAIL)
    assert task.label_range() == RANGE
    task.guard_noise()
    assert noise.slope.item() < 0.45


def test_a_result_says_the_noise_scale_of_the_weights_that_were_scored(run):
    for name in ("last", "best"):
        path = run / "checkpoints" / f"{name}.ckpt"
        content = torch.load(path, weights_only=True)
        content["state_dict"]["criterion.noise.log_sigma"].fill_(math.log(0.5))
        torch.save(content, path)
        assert evaluate_run(run, name)["protocol"]["noise_sigma"] == pytest.approx(0.5)


def test_a_report_shows_the_sigma_of_the_checkpoint_not_the_last_that_was_logged(run):
    learned = math.exp(checkpoint_of(run)["state_dict"]["criterion.noise.log_sigma"])
    (result,) = load_results([run])
    assert result.noise_sigma == pytest.approx(learned, rel=1e-6)
    assert result.curves["train/noise_sigma"][1][-1] != pytest.approx(learned, rel=1e-6)


def test_noise_that_follows_the_prediction_and_vectors_of_scales_are_no_one_number():
    assert noise_facts(BMCLoss(noise="depth")) == {}
    assert noise_facts(SimpleNamespace(noise_sigma=torch.ones(3))) == {}
    assert noise_facts(nn.L1Loss()) == noise_facts(None) == {}
