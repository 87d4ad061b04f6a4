"""The task: what chooses the best epoch, how runs are scored, and heads re-trained (RRT)."""

import json
import math
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from depthbal import load_predictor
from depthbal.errors import CheckpointError
from depthbal.evaluation import GROUPS
from depthbal.training.runs import open_run
from depthbal.training.settings import build, make_parser, parse
from depthbal.training.train import train
from tests.adapters.age.helpers import (
    NETWORK,
    GreyAges,
    retrain,
    tiny_config,
    train_age,
    weights_of,
)

CONFIGS = Path(str(files("depthbal"))) / "configs" / "age"
METRICS = ("mae", "mse", "gm", "bmae", "bmse")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny training with a fixed sigma, so that the read-outs differ."""
    folder = tmp_path_factory.mktemp("base")
    config = tiny_config(folder / "tiny.yaml", init_args={"peak": 150})
    loss = ["--model.criterion=BNILoss", "--model.criterion.noise=fixed"]
    loss += ["--model.criterion.init_noise_sigma=6"]
    return train_age(folder / "run", "--config", config, *loss)


@pytest.fixture(scope="module")
def gai(base, tmp_path_factory):
    return retrain(tmp_path_factory.mktemp("gai") / "run", base)


# ---- scores ----


def by_loops(preds, truth, ages):
    """The metrics of the samples whose age is among `ages`, by plain loops."""
    errors = defaultdict(list)
    for pred, age in zip(preds, truth, strict=True):
        if age in ages:
            errors[age].append(abs(pred - age))
    everything = [error for found in errors.values() for error in found]
    return {
        "mae": np.mean(everything),
        "mse": np.mean(np.square(everything)),
        "gm": math.prod(everything) ** (1 / len(everything)),
        "bmae": np.mean([np.mean(found) for found in errors.values()]),
        "bmse": np.mean([np.mean(np.square(found)) for found in errors.values()]),
    }


@pytest.mark.parametrize("readout", ["raw", "clamped", "mean"])
def test_every_shot_of_every_readout_equals_plain_loops_over_ages(base, readout):
    result = json.loads((base / "metrics.json").read_text())
    data, predictor = GreyAges(peak=150), load_predictor(base)
    images = torch.stack([sample["image"] for sample in data.dataset("test")])
    preds = predictor(images)[readout].double().tolist()
    truth = data.labels("test")[0].tolist()
    ages, counts = data.labels("train")[0].unique(return_counts=True)
    shots = {
        "overall": counts > 0,
        "many": counts > 100,
        "medium": (counts >= 20) & (counts <= 100),
        "few": counts < 20,
    }
    for shot, chosen in shots.items():
        found = result["readout"][readout][shot]
        expected = by_loops(preds, truth, ages[chosen].tolist())
        assert {name: found[name] for name in METRICS} == pytest.approx(expected, rel=1e-5)
        if readout == "mean":
            assert found["bmae"] == result[shot]["bmae"]


def test_the_result_says_what_was_scored(base):
    result = json.loads((base / "metrics.json").read_text())
    protocol = result["protocol"]
    assert (protocol["label"]["name"], protocol["label"]["unit"]) == ("age", "years")
    assert (protocol["main_metric"], protocol["readout"]) == ("mae", "mean")
    assert protocol["data"]["images"] == protocol["images"] == 40
    assert "means over the bins" in protocol["balanced"]
    assert [row["bmae"] for row in result["bins"]] == [row["mae"] for row in result["bins"]]


def test_shots_without_labels_are_empty_and_not_zero(tmp_path):
    run = train_age(tmp_path / "run", "--config", tiny_config(tmp_path / "tiny.yaml"))
    result = json.loads((run / "metrics.json").read_text())  # at most 25 images of an age
    assert result["many"] == {**dict.fromkeys(result["overall"]), "count": 0, "images": 0}
    assert result["few"]["bmae"] > 0


def test_the_best_epoch_has_the_lowest_mean_over_ages_of_the_mae(base):
    task, data = open_run(base).task(), GreyAges(peak=150)
    scores = task.make_scores(data, "val")
    truth = torch.tensor([20.0, 20.0, 20.0, 22.0, float("nan")])  # the last one is padding
    preds = {"mean": torch.tensor([22.0, 24.0, 20.0, 30.0, 1.0])}
    scores.update(preds, truth, truth.isfinite())
    values = task.validation_metrics(scores.compute())
    assert values["val/mae"] == pytest.approx((2 + 4 + 0 + 8) / 4)
    assert values[task.selection_metric] == pytest.approx(((2 + 4 + 0) / 3 + 8) / 2)


def test_a_run_opens_with_the_range_of_its_training_labels(base):
    assert open_run(base).task().criterion.label_range == (19.5, 59.5)
    assert load_predictor(base).label_range == (19.5, 59.5)


# ---- re-training ----


def parts(run, name):
    state = {k: v for k, v in weights_of(run).items() if k.startswith(f"model.{name}.")}
    assert state
    return state


def assert_same_backbone(run, base):
    mine, theirs = parts(run, "backbone"), parts(base, "backbone")
    assert any("running_var" in name for name in mine)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_backbone_is_bit_identical_afterwards_and_the_head_is_new(gai, base):
    assert_same_backbone(gai, base)
    head, former = parts(gai, "head"), parts(base, "head")
    assert not any(torch.allclose(head[name], former[name]) for name in head)


def test_cached_features_give_the_head_that_plain_images_give(base, tmp_path):
    for name, cached in (("cached", "true"), ("images", "false")):
        plain = ["--data.padding=0", "--data.flip=0", f"--model.cache_features={cached}"]
        retrain(tmp_path / name, base, *plain, config="age/rrt_bni")
        assert_same_backbone(tmp_path / name, base)
    cached, images = (parts(tmp_path / name, "head") for name in ("cached", "images"))
    for name in cached:
        torch.testing.assert_close(cached[name], images[name], rtol=1e-5, atol=1e-5)


def test_gai_has_two_components_and_learns_sigma_from_ten_at_a_rate_of_a_hundredth(gai):
    assert len(json.loads((gai / "prior.json").read_text())["prior"]["weights"]) == 2
    log_sigma = next(v for k, v in weights_of(gai).items() if k.endswith("log_sigma"))
    steps = torch.load(gai / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    # Adam moves a parameter by at most about its rate in every step
    assert 0.3 < abs(log_sigma.item() - math.log(10)) / (0.01 * steps) < 1.01


def test_an_interrupted_retraining_goes_on_to_the_same_weights(gai, base, tmp_path):
    cut = retrain(tmp_path / "run", base, "--trainer.max_epochs=1")
    train(["--trainer.max_epochs=3"], resume=str(cut))
    resumed, whole = weights_of(cut), weights_of(gai)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_base_of_another_backbone_is_refused(base, tmp_path):
    with pytest.raises(CheckpointError, match=r'"test_resnet".*"test_efficientnet"'):
        retrain(tmp_path / "run", base, "--model.model.backbone=test_efficientnet")


# ---- shipped configs ----

LOSS_OF = {
    "vanilla": ("L1Loss", {}),
    "plain": ("L1Loss", {}),
    "fds": ("L1Loss", {}),
    "mse": ("MSELoss", {}),
    "inverse": ("ReweightedLoss", {"weighting": "inverse", "clip": [5, 1000]}),
    "sqrt_inverse": ("ReweightedLoss", {"weighting": "sqrt_inverse", "clip": None}),
    "sqrt_inverse_fds": ("ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": None}),
    "lds": ("ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": "gaussian"}),
    "lds_fds": ("ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": "gaussian"}),
    "focal_r": ("FocalRLoss", {"beta": 0.2, "gamma": 1.0, "activation": "sigmoid"}),
    "gai": ("GAILoss", {"n_components": 2, "noise": "learned", "init_noise_sigma": 10.0}),
    "bmc": ("BMCLoss", {"noise": "learned", "init_noise_sigma": 10.0}),
    "bni": ("BNILoss", {"noise": "learned", "init_noise_sigma": 10.0}),
}
SHIPPED = [
    path for path in sorted(CONFIGS.rglob("*.yaml")) if path.stem not in ("base", "rrt_base")
]
SHIPPED = [path for path in SHIPPED if path.stem != "study"]


def as_lists(options):
    """Settings with their tuples as lists, as YAML has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.as_dict().items()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_has_the_published_loss_and_schedule(path):
    parser = make_parser()
    settings = parse(parser, ["--config", str(path), *NETWORK])
    drawn, retrains = path.parent.name == "drawn", path.stem.startswith("rrt_")
    loss, arguments = LOSS_OF[path.stem.removeprefix("rrt_")]
    criterion = settings.model.init_args.criterion
    assert criterion.class_path == f"depthbal.losses.{loss}"
    found = as_lists(criterion.init_args)
    assert {**found, **arguments} == found
    assert found.get("error", "absolute") == "absolute"
    assert settings.trainer.max_epochs == (6 + 4 * retrains if drawn else 30 if retrains else 90)
    task = build(parser, settings, "model")
    frozen = not any(p.requires_grad for p in task.model.backbone.parameters())
    assert frozen == retrains
    smoothing = settings.trainer.callbacks or []
    assert len(smoothing) == path.stem.endswith("fds")
    for callback in smoothing:
        published = {"kernel": "gaussian", "kernel_size": 5, "kernel_sigma": 2.0, "momentum": 0.9}
        options = as_lists(callback.init_args)
        assert {**options, **published, "clip": [0.1, 10.0], "start_epoch": 1} == options
    if retrains:
        options = settings.model.init_args
        assert (options.lr_scheduler, options.noise_lr) == (None, 0.01)
        assert options.optimizer.init_args.lr == (2e-3 if drawn else 1e-4)
        assert options.cache_features == (not smoothing)


def test_the_study_of_drawn_faces_shows_balanced_metrics():
    study = yaml.safe_load((CONFIGS / "drawn" / "study.yaml").read_text())
    assert {f"{group}.bmae" for group in GROUPS} <= set(study["metrics"])


def test_smoothed_features_train_on_images(base, tmp_path):
    run = retrain(tmp_path / "run", base, "--trainer.max_epochs=2", config="age/rrt_lds_fds")
    assert_same_backbone(run, base)
