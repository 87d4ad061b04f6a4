"""The task: what chooses the best epoch, how runs are scored, and heads re-trained (RRT)."""

import json
import math
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthbal import Predictor, load_predictor
from depthbal.commands import main
from depthbal.training.runs import open_run
from depthbal.training.settings import build, make_parser, parse
from depthbal.training.train import train
from tests.adapters.age.helpers import CPU, NETWORK, GreyAges, train_age, train_grey
from tests.processes import in_two_processes
from tests.training.helpers import checkpoint_of, same_weights

CONFIGS = Path(str(files("depthbal"))) / "configs" / "age"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny training with a fixed sigma, so that the read-outs differ."""
    more = ["--trainer.max_epochs=1", "--data.peak=150", "--model.optimizer.lr=0.002"]
    more += ["--model.criterion=BNILoss", "--model.criterion.noise=fixed"]
    more += ["--model.criterion.init_noise_sigma=6"]
    return train_grey(tmp_path_factory.mktemp("base") / "run", "age/vanilla", *more)


def retrain(out, base, *arguments, config="age/rrt_gai"):
    return train_grey(out, config, f"--model.weights_from={base}", *arguments)


@pytest.fixture(scope="module")
def gai(base, tmp_path_factory):
    return retrain(tmp_path_factory.mktemp("gai") / "run", base)


# ---- scores ----


def test_a_run_says_what_was_scored_and_chooses_the_epoch_by_the_mean_over_ages(base):
    task, data = open_run(base).task(), GreyAges(peak=150)
    scores = task.make_scores(data, "val")
    truth = torch.tensor([20.0, 20.0, 20.0, 22.0, float("nan")])  # the last one is padding
    preds = {"mean": torch.tensor([22.0, 24.0, 20.0, 30.0, 1.0])}
    scores.update(preds, truth, truth.isfinite())
    values = task.validation_metrics(scores.compute())
    assert values["val/mae"] == pytest.approx((2 + 4 + 0 + 8) / 4)
    assert values[task.selection_metric] == pytest.approx(((2 + 4 + 0) / 3 + 8) / 2)
    protocol = json.loads((base / "metrics.json").read_text())["protocol"]
    assert (protocol["label"]["name"], protocol["label"]["unit"]) == ("age", "years")
    assert (protocol["main_metric"], protocol["readout"]) == ("mae", "mean")
    assert protocol["data"]["images"] == protocol["images"] == 39
    assert task.criterion.label_range == load_predictor(base).label_range == (19.5, 59.5)


def test_a_plain_network_predicts_without_an_interval_and_prices_in_all_their_digits(
    base, tmp_path, monkeypatch
):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 30, 3), 90, np.uint8))
    monkeypatch.setattr(Predictor, "interval", lambda *_: None)  # as of a loss without sigma
    monkeypatch.setattr(Predictor, "read_out", lambda *_: {"mean": torch.tensor([123456.0])})
    paths = [str(base), str(tmp_path / "a.png"), "--out", str(tmp_path / "prices.csv")]
    assert main("predict", [*paths, "--device", "cpu"]) == 0
    assert (tmp_path / "prices.csv").read_text().splitlines()[1] == f"{paths[1]},123456,,"


# ---- re-training ----


def parts(run, name):
    state = checkpoint_of(run)["state_dict"]
    state = {k: v for k, v in state.items() if k.startswith(f"model.{name}.")}
    assert state
    return state


def assert_same_backbone(run, base):
    mine, theirs = parts(run, "backbone"), parts(base, "backbone")
    assert any("running_var" in name for name in mine)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_only_the_head_is_new_with_sigma_learned_at_a_rate_of_a_hundredth_from_ten(gai, base):
    assert_same_backbone(gai, base)
    head, former = parts(gai, "head"), parts(base, "head")
    assert not any(torch.allclose(head[name], former[name]) for name in head)
    assert len(json.loads((gai / "prior.json").read_text())["prior"]["weights"]) == 2
    content = checkpoint_of(gai)
    log_sigma = next(v for k, v in content["state_dict"].items() if k.endswith("log_sigma"))
    # Adam moves a parameter by at most about its rate in every step
    assert 0.3 < abs(log_sigma.item() - math.log(10)) / (0.01 * content["global_step"]) < 1.01


def test_an_interrupted_retraining_goes_on_to_the_same_weights(gai, base, tmp_path):
    cut = retrain(tmp_path / "run", base, "--trainer.max_epochs=1")
    train(["--trainer.max_epochs=3"], resume=str(cut))
    assert same_weights(cut, gai)


def test_two_processes_keep_the_backbone_and_score_as_one_does(base, tmp_path):
    run = tmp_path / "run"
    more = ("age/rrt_gai", f"--model.weights_from={base}", "--trainer.max_epochs=1")
    in_two_processes(train_grey, run, *more)
    assert_same_backbone(run, base)
    assert not torch.equal(*(parts(r, "head")["model.head.weight"] for r in (run, base)))
    together = json.loads((run / "metrics.json").read_text())
    assert main("evaluate", [str(run)]) == 0
    alone = json.loads((run / "metrics.json").read_text())
    assert together["overall"]["count"] == 39  # odd: one process has one more
    for group in ("overall", "medium", "few"):
        assert alone[group] == pytest.approx(together[group], rel=1e-5)


# ---- shipped configs ----

LOSS_OF = {
    "vanilla": ("L1Loss", {}),
    "fds": ("L1Loss", {}),
    "plain": ("L1Loss", {}),
    "mse": ("MSELoss", {}),
    "inverse": ("ReweightedLoss", {"weighting": "inverse", "clip": [5, 1000]}),
    "sqrt_inverse": ("ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": None}),
    "lds": ("ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": "gaussian"}),
    "focal_r": ("FocalRLoss", {"beta": 0.2, "gamma": 1.0, "activation": "sigmoid"}),
    "gai": ("GAILoss", {"n_components": 2, "noise": "learned", "init_noise_sigma": 10.0}),
    "bmc": ("BMCLoss", {"noise": "learned", "init_noise_sigma": 10.0}),
    "bni": ("BNILoss", {"noise": "learned", "init_noise_sigma": 10.0}),
}
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))
SHIPPED = [path for path in SHIPPED if path.stem not in ("base", "rrt_base", "study")]


def as_lists(options):
    """Settings with their tuples as lists, as YAML has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.as_dict().items()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_has_the_published_loss_and_schedule(path):
    parser = make_parser()
    settings = parse(parser, ["--config", str(path), *NETWORK])
    drawn, retrains = path.parent.name == "drawn", path.stem.startswith("rrt_")
    loss, arguments = LOSS_OF[path.stem.removeprefix("rrt_").removesuffix("_fds")]
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


def test_gai_lowers_bmae_above_all_at_rare_drawn_ages_and_pays_little_at_common_ones(tmp_path):
    small = [*CPU, "--data.image_size=16", "--data.batch_size=64", "--trainer.max_epochs=1"]
    base = train_age(tmp_path / "vanilla", "--config", "age/drawn/vanilla", *small)
    other = ["--config", "age/drawn/rrt_gai", f"--model.weights_from={base}"]
    run = train_age(tmp_path / "gai", *other, *small)
    vanilla, gai = (json.loads((r / "metrics.json").read_text()) for r in (base, run))
    assert gai["overall"]["bmae"] < 0.88 * vanilla["overall"]["bmae"]
    assert gai["few"]["bmae"] < 0.8 * vanilla["few"]["bmae"]
    assert gai["many"]["mae"] < 1.3 * vanilla["many"]["mae"]
