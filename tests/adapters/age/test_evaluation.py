"""Scores of ages: balanced metrics against plain loops, read-outs, files, empty shots."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from depthbal.adapters.age.evaluation import score_split, with_balanced
from depthbal.losses import GAILoss, L1Loss
from depthbal.predictor import Predictor
from depthbal.priors import GaussianMixture
from tests.adapters.age.helpers import GreyAges, GreyImages, tiny_config, train_age

SPEC = {"short_side": None, "mean": [0.5] * 3, "std": [0.5] * 3}
METRICS = ("mae", "mse", "gm", "bmae", "bmse", "count")


class Brightness(nn.Module):
    """Read an age off the mean grey, badly."""

    def forward(self, images):
        return images.mean((1, 2, 3)) * 40 + 35


def brute_force(preds, truth, ages):
    """The metrics of the samples whose age is among `ages`, by plain loops."""
    errors = {age: [] for age in ages}
    for pred, age in zip(preds, truth, strict=True):
        if age in errors:
            errors[age].append(abs(pred - age))
    everything = [error for found in errors.values() for error in found]
    if not everything:
        return dict.fromkeys(METRICS) | {"count": 0}
    present = [found for found in errors.values() if found]
    return {
        "mae": sum(everything) / len(everything),
        "mse": sum(error**2 for error in everything) / len(everything),
        "gm": math.prod(everything) ** (1 / len(everything)),
        "bmae": sum(sum(found) / len(found) for found in present) / len(present),
        "bmse": sum(sum(e**2 for e in found) / len(found) for found in present) / len(present),
        "count": len(everything),
    }


def assert_equal(row, expected):
    for name in METRICS:
        assert row[name] == (
            None if expected[name] is None else pytest.approx(expected[name], rel=1e-5)
        )


@pytest.fixture(scope="module")
def scored():
    """The result, the raw predictions, the ages, and the training images of every age."""
    data = GreyAges(peak=150)
    criterion = GAILoss(
        GaussianMixture([1.0], [30.0], [80.0]), init_noise_sigma=8.0, label_range=(19.5, 59.5)
    )
    predictor = Predictor(Brightness(), criterion, SPEC, "mean").eval()
    result = with_balanced(score_split(data, predictor, {"epochs": 1}).result())
    images = torch.cat([batch["image"] for batch in data.test_dataloader()])
    raw = predictor.model(images)
    ages, counts = np.unique(data.labels("train"), return_counts=True)
    return result, raw, predictor, data.labels("test"), dict(zip(ages, counts, strict=True))


def ages_of(shot, counts):
    kinds = {age: "many" if n > 100 else "few" if n < 20 else "medium" for age, n in counts.items()}
    return [age for age, kind in kinds.items() if shot in (kind, "overall")]


@pytest.mark.parametrize("shot", ["overall", "many", "medium", "few"])
def test_every_shot_equals_plain_loops_over_ages(scored, shot):
    result, raw, predictor, truth, counts = scored
    preds = predictor.read_out(raw)["mean"].tolist()
    expected = brute_force(preds, truth, ages_of(shot, counts))
    assert expected["count"] > 0
    assert_equal(result[shot], expected)


def test_every_age_equals_plain_loops(scored):
    result, raw, predictor, truth, _ = scored
    preds = predictor.read_out(raw)["mean"].tolist()
    assert [row["from"] for row in result["bins"]] == [age - 0.5 for age in range(20, 60)]
    for row in result["bins"]:
        assert_equal(row, brute_force(preds, truth, [row["from"] + 0.5]))


@pytest.mark.parametrize("readout", ["raw", "clamped", "mean"])
def test_every_readout_is_stored_with_its_balanced_metrics(scored, readout):
    result, raw, predictor, truth, counts = scored
    preds = predictor.read_out(raw)[readout].tolist()
    expected = brute_force(preds, truth, ages_of("few", counts))
    assert_equal(result["readout"][readout]["few"], expected)
    assert result["protocol"]["readout"] == "mean"


def test_readouts_differ_so_that_confusing_them_would_show(scored):
    blocks = [scored[0]["readout"][name]["few"]["bmae"] for name in ("raw", "mean")]
    assert abs(blocks[0] - blocks[1]) > 0.1


def test_the_protocol_says_what_was_scored(scored):
    protocol = scored[0]["protocol"]
    assert protocol["label"] == {"name": "age", "unit": "years"}
    assert protocol["main_metric"] == "mae"
    assert protocol["data"]["images"] == protocol["images"] == len(scored[3])
    assert "mean over the bins" in protocol["balanced"]


def test_shots_without_labels_are_empty_and_not_zero(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")  # at most 25 images of an age: no many-shot
    run = train_age("--config", config, "--out", tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["many"] == {
        **dict.fromkeys(metrics["overall"]),
        "count": 0,
        "images": 0,
    }
    assert metrics["few"]["bmae"] > 0
    with np.load(run / "per_image.npz") as arrays:
        assert len(arrays["names"]) == metrics["overall"]["count"]
        assert str(arrays["label_name"]) == "age"


@pytest.mark.parametrize("independent", [True, False])
def test_only_images_known_to_be_independent_are_resampled_one_by_one(independent, monkeypatch):
    monkeypatch.setattr(GreyImages, "independent", independent, raising=False)
    predictor = Predictor(Brightness(), L1Loss(), SPEC, "raw").eval()
    arrays = score_split(GreyAges(), predictor, {}).per_image()
    assert arrays["groups"].tolist() == (
        arrays["names"].tolist() if independent else [""] * len(arrays["names"])
    )
