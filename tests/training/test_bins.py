"""A network with a head of bins: trained once, read out for any world afterwards."""

import json

import cv2
import numpy as np
import onnx
import pytest

from depthbal import load_predictor
from depthbal.errors import ConfigError
from depthbal.export import export_predictor, open_graph
from depthbal.training import evaluate_run
from tests.training.conftest import trained
from tests.training.helpers import (
    GAI,
    checkpoint_of,
    command,
    files_of,
    logged,
    metrics_of,
    rooms_of_the_test,
    tiny_config,
    unet,
)

HEAD = {"kind": "bins", "bins": 12}
BINS = {
    "class_path": "depthbal.losses.BinsLoss",
    "init_args": {"n_bins": 12, "label_range": [0.7, 10.0]},
}


@pytest.fixture(scope="session")
def bins_run(tmp_path_factory):
    """A finished run; tests only add evaluations to it."""
    return trained(tmp_path_factory.mktemp("bins"), BINS, head=HEAD)


def rmse(preds, truth):
    counts = truth >= 0.7
    return float(np.sqrt(np.mean((preds - truth)[counts] ** 2)))


def test_a_run_is_scored_in_the_world_and_at_the_tau_of_its_settings(bins_run):
    metrics = metrics_of(bins_run)
    assert set(metrics["readout"]) == {"raw", "clamped", "mean", "median"}
    assert (metrics["protocol"]["tau"], metrics["protocol"]["relative_to"]) == (1.0, "uniform")
    assert 0 <= metrics["all_pixels"]["overall"]["rmse"] < 10
    assert metrics["calibration"] is not None
    entry = checkpoint_of(bins_run)["depthbal"]
    assert entry["model"]["init_args"]["head"] == HEAD
    assert (bins_run / "report.html").stat().st_size > 1e5


@pytest.mark.parametrize(
    ("options", "name", "tau", "world"),
    [
        (["--tau", 0.0], "tau_0", 0.0, "uniform"),
        (
            ["--tau", 0.5, "--relative-to", "log_uniform"],
            "tau_0.5_to_log_uniform",
            0.5,
            "log_uniform",
        ),
    ],
)
def test_evaluate_and_predict_read_the_same_run_for_another_world(
    bins_run, options, name, tau, world, tmp_path
):
    assert command("evaluate", bins_run, *options) == 0
    metrics = metrics_of(bins_run / "eval" / name)
    assert (metrics["protocol"]["tau"], metrics["protocol"]["relative_to"]) == (tau, world)
    images, truth = map(np.stack, zip(*rooms_of_the_test(), strict=True))
    predictor = load_predictor(bins_run, tau=tau, relative_to=world)
    preds = np.stack([predictor.predict(image) for image in images])
    of_training = np.stack([predictor.set_world(0.0).predict(image) for image in images])
    found = metrics["all_pixels"]["overall"]["rmse"]
    assert found == pytest.approx(rmse(preds, truth), rel=1e-4)
    raw = metrics["readout"]["raw"]["all_pixels"]["overall"]["rmse"]
    assert raw == pytest.approx(rmse(of_training, truth), rel=1e-4)
    assert np.allclose(preds, of_training) == (tau == 0)

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), images[0][..., ::-1])
    assert command("predict", bins_run, picture, *options, "--out", tmp_path) == 0
    written = cv2.imread(str(tmp_path / "picture_depth.png"), cv2.IMREAD_UNCHANGED) / 1000
    np.testing.assert_allclose(written, preds[0], atol=6e-4)


def test_the_interval_holds_the_median_and_moves_with_tau(bins_run):
    image, _ = rooms_of_the_test()[0]
    plain, balanced = (load_predictor(bins_run, tau=tau) for tau in (0.0, 1.0))
    plain.readout = balanced.readout = "median"
    ends = []
    for predictor in (plain, balanced):
        depth, (lower, upper) = predictor.predict_with_interval(image)
        assert (lower <= depth).all()
        assert (depth <= upper).all()
        ends.append((lower, upper))
    assert (ends[1][1] > ends[0][1] - 1e-5).all()  # far depths are rare: balancing goes outwards
    assert (ends[1][1] > ends[0][1] + 0.01).any()


@pytest.mark.parametrize(("form", "readout"), [("onnx", "median"), ("torch", "mean")])
def test_an_exported_network_takes_tau_as_an_input(bins_run, form, readout, tmp_path):
    predictor = load_predictor(bins_run, relative_to="log_uniform")
    predictor.readout = readout
    images = np.stack([image for image, _ in rooms_of_the_test()])
    largest, _ = export_predictor(predictor, form, tmp_path / "model", images, {})
    assert largest < 1e-3
    run = open_graph(form, tmp_path / "model")
    for tau in (0.0, 0.3, 1.0):
        expected = np.stack([predictor.set_world(tau).predict(image) for image in images[:3]])
        np.testing.assert_allclose(run(images[:3], tau), expected, atol=1e-3)
    if form == "onnx":
        about = {one.key: one.value for one in onnx.load(tmp_path / "model").metadata_props}
        assert json.loads(about["world"])["relative_to"] == "log_uniform"


def test_a_study_reads_its_runs_out_at_every_tau(bins_run, tmp_path, capsys):
    config = tiny_config(
        tmp_path / "bins.yaml", model={"model": unet(head=HEAD), "criterion": BINS}
    )
    out = tmp_path / "study"
    arguments = ["--configs", config, "--tau", 0, 0.5, "--out", out]
    assert command("study", *arguments) == 0
    before = files_of(out / "bins-0" / "eval")
    assert command("study", *arguments) == 0
    assert files_of(out / "bins-0" / "eval") == before
    assert list(json.loads((out / "table.json").read_text())) == [
        "bins",
        "bins, tau 0",
        "bins, tau 0.5",
    ]


def test_networks_of_other_losses_have_no_such_choice(mse_run, bins_run, capsys):
    for call in (lambda: load_predictor(mse_run, tau=0.5), lambda: evaluate_run(mse_run, tau=0.5)):
        with pytest.raises(ConfigError, match=r"only for a network of BinsLoss.*MSELoss"):
            call()
    with pytest.raises(ConfigError, match=r"tau in \[0, 1\]"):
        load_predictor(bins_run, tau=1.5)
    with pytest.raises(ConfigError, match=r"cannot read missing\.json"):
        load_predictor(bins_run, relative_to="missing.json")
    assert command("evaluate", bins_run, "--posthoc", 1) == 2
    assert "balances already" in capsys.readouterr().err


def test_logits_of_another_size_than_the_depth_train_with_resize_target(tmp_path):
    model = {"model": unet(head=HEAD), "criterion": BINS, "resize": "target"}
    config = tiny_config(tmp_path / "c.yaml", model=model)
    sizes = "--data.depth_size=[24,32]", "--trainer.max_epochs=1"
    assert command("train", "--config", config, *sizes, "--out", tmp_path / "run") == 0
    curves = logged(tmp_path / "run")
    assert all(float(row["train/loss_epoch"]) > 0 for row in curves if row.get("train/loss_epoch"))


def test_a_sum_of_losses_and_another_head_train_from_a_config_and_are_opened_again(tmp_path):
    gradient = {"class_path": "depthbal.losses.GradientLoss", "init_args": {"strides": [1, 2]}}
    both = {"losses": [GAI, gradient], "factors": [1.0, 0.2]}
    criterion = {"class_path": "depthbal.losses.CombinedLoss", "init_args": both}
    model = {"model": unet(head={"kind": "log"}), "criterion": criterion}
    config, out = tiny_config(tmp_path / "c.yaml", model=model), tmp_path / "run"
    assert command("train", "--config", config, "--trainer.max_epochs=1", "--out", out) == 0
    predictor = load_predictor(out)
    image, _ = rooms_of_the_test()[0]
    depth, (lower, upper) = predictor.predict_with_interval(image)
    assert ((depth > 0.7) & (depth < 10)).all()
    assert ((lower < depth) & (depth < upper)).all()
    sigmas = [float(row["train/noise_sigma"]) for row in logged(out) if row["train/noise_sigma"]]
    assert sigmas[-1] != 1.0  # it is learned, at its own rate


def test_mirrored_averaging_and_tiles_are_of_the_read_out_in_the_chosen_world(bins_run):
    image, _ = rooms_of_the_test()[0]
    predictor = load_predictor(bins_run, tau=0.5)
    both = [predictor.predict(image), predictor.predict(image[:, ::-1].copy())[:, ::-1]]
    found, (lower, upper) = predictor.predict_with_interval(image, flip=True)
    np.testing.assert_allclose(found, np.mean(both, 0), atol=1e-4)
    assert ((lower < found) & (found < upper)).all()
    large = cv2.resize(image, None, fx=4, fy=4)
    tiled = predictor.predict(large, tile=64)
    assert tiled.shape == large.shape[:2]
    assert ((tiled > 0.7) & (tiled < 10)).all()
