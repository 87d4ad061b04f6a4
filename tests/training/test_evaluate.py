"""A run scored again: what it gives, where it goes, and balanced afterwards."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from depthbal import load_predictor
from depthbal.data import RoomsDataModule
from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.evaluation import Scores
from depthbal.losses import balance_predictions, sigma_from_rmse
from depthbal.training import evaluate_run, open_run
from depthbal.training.evaluate import posthoc_sigma
from tests.data.make_files import SMALL, write_nyud2
from tests.training.helpers import (
    Changed,
    change_checkpoint,
    checkpoint_of,
    command,
    files_of,
    in_eigen_crop,
    pretend_errors,
    rooms_of_the_test,
    tiny_config,
    train_tiny,
)

METRICS = {"rmse", "mse", "mae", "abs_rel", "log10", "delta1", "delta2", "delta3", "bias", "count"}
RANGE = (0.7, 10.0)


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def flat_predictions(run, readout="raw"):
    """Predictions and depths of all test pixels that count, made one image at a time."""
    predictor = load_predictor(run)
    predictor.readout = readout
    preds, truth = [], []
    for image, depth in rooms_of_the_test():
        preds.append(predictor.predict(image)[depth >= 0.7])
        truth.append(depth[depth >= 0.7])
    return np.concatenate(preds).astype(np.float64), np.concatenate(truth).astype(np.float64)


def rmse(preds, truth):
    return math.sqrt(np.mean((preds - truth) ** 2))


def coverage(located, truth, sigma):
    """How many labels lie in the central 68 % of scipy's truncated normal around a location."""
    ends = (RANGE[0] - located) / sigma, (RANGE[1] - located) / sigma
    shares = truncnorm.cdf(truth, *ends, loc=located, scale=sigma)
    return np.mean(np.abs(shares - 0.5) <= 0.6826895 / 2)


def test_metrics_have_the_documented_structure(finished_run):
    metrics = metrics_of(finished_run)
    groups = {"overall", "many", "medium", "few"}
    assert {"protocol", "bins", "all_pixels", *groups} <= set(metrics)
    assert {"per_image_mean", "per_bin_mean", "calibration"} <= set(metrics)
    assert {"bins", *groups} <= set(metrics["all_pixels"])
    assert set(metrics["readout"]) == {"raw", "clamped", "mean"}
    assert all(set(metrics[group]) >= METRICS for group in groups)
    first = metrics["bins"][0]
    assert {"bin", "from_m", "to_m", "count", "images", "rmse"} <= set(first)
    assert (first["bin"], first["from_m"]) == (7, 0.7)
    protocol = metrics["protocol"]
    expected = {"checkpoint": "last", "name": "nyud2_dir", "epochs": 2, "readout": "mean"}
    assert {key: protocol[key] for key in expected} == expected
    assert protocol["mask"]["seed"] == 0
    assert (protocol["data"]["class"], protocol["data"]["images"]) == ("RoomsDataModule", 4)
    counts = open_run(finished_run).histogram().counts
    many = (np.flatnonzero(counts / counts.mean() > 0.688) + 7).tolist()
    assert protocol["bins"]["shots"]["many"] == many
    # the balanced mask holds equally many pixels of every bin
    counts = {row["count"] for row in metrics["bins"] if row["count"]}
    assert counts == {protocol["mask"]["per_bin"]}


def test_numbers_agree_with_predictions_made_one_by_one(finished_run):
    metrics, predictor = metrics_of(finished_run), load_predictor(finished_run)
    for readout in ("raw", "mean"):
        preds, truth = flat_predictions(finished_run, readout)
        overall = metrics["readout"][readout]["all_pixels"]["overall"]
        assert overall["rmse"] == pytest.approx(rmse(preds, truth), rel=1e-4)
        assert overall["count"] == len(truth)
    p, truth = flat_predictions(finished_run)
    expected = coverage(p, truth, float(predictor.criterion.noise_sigma))
    found = metrics["calibration"]["all"]["overall"]
    assert found["coverage"] == pytest.approx(expected, abs=3 / len(truth))
    # single predictions may differ in the last digit and so move by one bin
    scores = Scores.load(finished_run)
    columns = np.histogram(p, [-np.inf, *scores.bins.edges, np.inf])[0]
    assert np.abs(scores.joint("all", "raw").sum(0) - columns).sum() <= 4


def test_evaluation_repeats_what_training_wrote_and_never_fits(run, monkeypatch):
    before = metrics_of(run)
    scores = (run / "scores.npz").read_bytes()
    monkeypatch.setattr("depthbal.data.datamodule.LateLoader", lambda *_: pytest.fail("counted"))
    (run / "metrics.json").unlink()
    assert evaluate_run(run) == (before, run)
    assert metrics_of(run) == before
    assert (run / "scores.npz").read_bytes() == scores


def test_other_checkpoints_and_protocols_have_folders_of_their_own(run, capsys):
    before = files_of(run)
    zeros = dict.fromkeys(("segmentation_head__0__weight", "segmentation_head__0__bias"), 0)
    change_checkpoint(run, "best", **zeros, criterion__noise__log_sigma=math.log(0.5))
    before[run / "checkpoints" / "best.ckpt"] = (run / "checkpoints" / "best.ckpt").read_bytes()
    arguments = ["--checkpoint", "best", "--device", "cpu"]
    assert command("evaluate", run, *arguments) == 0
    assert "Balanced mask" in capsys.readouterr().out
    best = metrics_of(run / "eval" / "best")
    assert best["protocol"]["checkpoint"] == "best"
    assert best["protocol"]["noise_sigma"] == pytest.approx(0.5)
    # a network of zeros predicts 0 m
    assert best["readout"]["raw"]["overall"]["abs_rel"] == pytest.approx(1.0)
    assert command("evaluate", run, *arguments, "--protocol", "eigen") == 0
    assert "Protocol eigen, mean over images" in " ".join(capsys.readouterr().out.split())
    for folder in (run / "eval" / "best", run / "eval" / "eigen_best"):
        assert {"scores.npz", "examples.npz"} <= {path.name for path in folder.iterdir()}
        assert len(list((folder / "predictions").glob("*.png"))) == 4
    assert {path: content for path, content in files_of(run).items() if path in before} == before


def test_eigen_scores_whole_images_averaged_over_images(run):
    result, folder = evaluate_run(run, protocol="eigen")
    predictor = load_predictor(run)
    errors = []
    for image, depth in rooms_of_the_test():
        inside = in_eigen_crop(depth)
        preds = np.clip(predictor.predict(image), 1e-3, 10)
        errors.append(rmse(preds[inside].astype(np.float64), depth[inside]))
    assert result["overall"]["rmse"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert result["protocol"]["name"] == "eigen"
    assert folder == run / "eval" / "eigen"
    assert metrics_of(folder) == result


def test_a_run_is_scored_by_several_protocols_and_alignments_in_one_pass(run, capsys):
    alone = {name: evaluate_run(run, protocol=name)[0] for name in ("eigen", "whole")}
    shown = ["--protocol", "eigen", "whole", "--align", "none", "median", "--device", "cpu"]
    assert command("evaluate", run, *shown) == 0
    folders = [run / "eval" / f"{name}_none_median_aligned" for name in alone]
    assert f"whole, pooled over pixels, {alone['whole']['protocol']['readout']}" in (
        capsys.readouterr().out
    )
    for folder, expected in zip(folders, alone.values(), strict=True):
        found = metrics_of(folder)
        assert found["overall"] == expected["overall"]
        assert found["protocol"]["alignment"]["median_aligned"].endswith("not metric")
    rows = metrics_of(folders[0])["protocols"]
    assert [row["protocol"] for row in rows] == ["eigen"] * 6 + ["whole"] * 6
    assert (folders[0] / "report.html").is_file()
    predictor, errors = load_predictor(run), []
    for image, depth in rooms_of_the_test():
        inside, preds = in_eigen_crop(depth), predictor.predict(image)
        preds = preds * (np.median(depth[inside]) / np.median(preds[inside]))
        errors.append(rmse(np.clip(preds, 1e-3, 10)[inside].astype(np.float64), depth[inside]))
    median = next(row for row in rows if row["readout"] == "median_aligned")
    assert median["rmse"] == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "agedb"], "scored by nyud2_dir or eigen or kitti or whole, not by 'agedb'"),
        (["--data.n_tets", "3"], "n_tets"),
        (["--trainer.max_epochs", "3"], r"only --data\.KEY"),
        (["--data.batch_size", "-1"], "batch_size"),
        (["--posthoc", "1"], "GAILoss, which balances already"),
        (["--posthoc", "auto"], "GAILoss, which balances already"),
        (["--posthoc", "much"], "SIGMA"),
    ],
)
def test_what_a_run_cannot_be_scored_with_is_one_message(finished_run, options, message, capsys):
    before = files_of(finished_run)
    assert command("evaluate", finished_run, "--device", "cpu", *options) == 2
    error = capsys.readouterr().err
    assert message.replace("\\", "") in error
    assert "Traceback" not in error
    assert files_of(finished_run) == before


@pytest.mark.parametrize(("name", "content"), [("prior.json", "{"), ("config.yaml", "a: [")])
def test_damaged_parts_of_a_run_are_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(RunFolderError, match=f"{name} is damaged"):
        evaluate_run(run)


def test_the_benchmark_is_scored_with_its_official_shots_and_mask(tmp_path):
    data = write_nyud2(tmp_path / "root", scenes=2, n_test=3)
    section = {
        "class_path": "depthbal.data.NYUD2DataModule",
        "init_args": {"root": str(tmp_path / "root"), "val_fraction": 0.0, **SMALL},
    }
    config = tiny_config(tmp_path / "tiny.yaml", data=section)
    run = train_tiny(config, tmp_path / "run", "--trainer.max_epochs", "1")
    shots = metrics_of(run)["protocol"]["bins"]["shots"]
    assert [len(shots[name]) for name in ("many", "medium", "few")] == [39, 15, 39]
    moved = tmp_path / "other" / "data"
    shutil.copytree(data, moved)
    mask = np.zeros((3, 20, 28), dtype=np.uint8)
    mask[:, 5, 4:24] = 1
    np.save(moved / "test_balanced_mask.npy", mask)
    metrics, folder = evaluate_run(run, overrides=["--data.root", str(moved.parent)])
    # the same truths, but the run's own pictures are still there: those may be others
    assert folder == run / "eval" / "other"
    assert metrics["overall"]["count"] == 3 * 20
    assert metrics["protocol"]["mask"]["source"] == "test_balanced_mask.npy"
    assert metrics["protocol"]["data"]["source"] == str(moved.parent)
    (tmp_path / "root").rename(tmp_path / "moved")
    assert evaluate_run(run, overrides=["--data.root", str(tmp_path / "moved")])[1] == run


@pytest.mark.parametrize(
    ("protocol", "damage", "message"),
    [
        ("nyud2_dir", lambda depth: depth[:-2], "22 x 32"),
        ("eigen", lambda depth: depth.astype(np.float64), "of float64"),
    ],
)
def test_a_damaged_pair_is_refused_by_name(finished_run, damage, message, protocol, monkeypatch):
    whole = RoomsDataModule.test_source
    monkeypatch.setattr(
        RoomsDataModule,
        "test_source",
        lambda data: Changed(whole(data), lambda index, d: damage(d) if index == 1 else d),
    )
    monkeypatch.setattr("depthbal.data.datamodule.check_split", lambda *_, **__: None)
    with pytest.raises(DataError, match=f"00001.*{message}"):
        evaluate_run(finished_run, protocol=protocol)


def test_scores_are_those_of_the_predictions_balanced_by_hand(mse_run):
    before = files_of(mse_run)
    metrics, folder = evaluate_run(mse_run, posthoc=0.8)
    assert folder == mse_run / "eval" / "posthoc_0.8"
    assert {path: path.read_bytes() for path in before} == before
    raw, truth = flat_predictions(mse_run)
    histogram = open_run(mse_run).histogram()
    located = balance_predictions(torch.from_numpy(raw), histogram, 0.8)
    mean = balance_predictions(torch.from_numpy(raw), histogram, 0.8, RANGE)
    expected = {"mean": mean, "raw": located, "clamped": located.clamp(*RANGE)}
    for readout, preds in expected.items():
        found = metrics["readout"][readout]["all_pixels"]["overall"]["rmse"]
        assert found == pytest.approx(rmse(preds.numpy(), truth), rel=1e-4)
    found = metrics["calibration"]["all"]["overall"]
    assert found["count"] == len(truth)
    expected = coverage(located.numpy(), truth, 0.8)
    assert found["coverage"] == pytest.approx(expected, abs=3 / len(truth))
    assert metrics_of(mse_run)["calibration"] is None
    # its pictures show the balanced depth
    plain = mse_run / "predictions" / "test_00000.png"
    assert plain.read_bytes() != (folder / "predictions" / plain.name).read_bytes()


def test_it_stands_beside_the_other_evaluations_and_says_what_it_is(mse_run, capsys):
    options = ["--protocol=eigen", "--checkpoint=best", "--posthoc=1.25", "--device=cpu"]
    assert command("evaluate", mse_run, *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "balanced afterwards (sigma 1.25)" in printed
    protocol = metrics_of(mse_run / "eval" / "eigen_best_posthoc_1.25")["protocol"]
    found = protocol["posthoc"]
    assert (found["noise_sigma"], found["sigma_from"]) == (1.25, "given")
    assert "training histogram" in found["prior"]
    assert protocol["noise_sigma"] == 1.25
    assert not {"posthoc", "noise_sigma"} & set(metrics_of(mse_run)["protocol"])


def test_auto_takes_the_validation_error_of_the_checkpoints_epoch(mse_run, run, tmp_path):
    plain = shutil.copytree(mse_run, tmp_path / "plain")
    with pytest.raises(ConfigError, match="below the labels' standard deviation"):
        posthoc_sigma(open_run(plain), "last", "auto")  # nobody trained it for long
    errors = 0.7, 0.9
    pretend_errors(plain, *errors)
    sigmas = [sigma_from_rmse(error, open_run(plain).histogram()) for error in errors]
    metrics, folder = evaluate_run(plain, posthoc="auto")
    found = metrics["protocol"]["posthoc"]
    assert found["noise_sigma"] == pytest.approx(sigmas[1], rel=5e-3)
    assert "val/rmse 0.9 of epoch 1" in found["sigma_from"]
    assert folder.name == f"posthoc_{found['noise_sigma']:g}"
    sigma, _ = posthoc_sigma(open_run(plain), "best", "auto")
    assert sigma == pytest.approx(sigmas[checkpoint_of(plain, "best")["epoch"]], rel=5e-3)
    (run / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match=r"metrics\.csv.*--posthoc SIGMA"):
        posthoc_sigma(open_run(run), "last", "auto")


def test_other_images_have_a_folder_of_their_own_and_the_run_keeps_its_result(
    run, tmp_path, capsys
):
    before = files_of(run)
    seven = ["--data.n_test", "7"]
    metrics, folder = evaluate_run(run, overrides=seven)
    assert (folder, metrics["protocol"]["images"]) == (run / "eval" / "n_test_7", 7)
    assert evaluate_run(run, overrides=seven)[1] == folder
    assert evaluate_run(run, overrides=["--data.num_workers=0"])[1] == run  # the same images
    root = tmp_path / "street"
    for index, (image, depth) in enumerate(rooms_of_the_test()):
        for part, array in (("rgb", image[..., ::-1]), ("depth", (depth * 1000).astype(np.uint16))):
            (root / "test" / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "test" / part / f"{index}.png"), array)
    other = ["--data", "FolderDataModule", "--data.root", str(root), "--device", "cpu"]
    assert command("evaluate", run, *other, "--edges") == 0
    shown = metrics_of(run / "eval" / "FolderDataModule_street")["overall"]["boundary_f1"]
    assert f"Edges, overall: boundary_f1 {shown:.3f}" in capsys.readouterr().out
    metrics = metrics_of(run / "eval" / "FolderDataModule_street")
    assert metrics["protocol"]["data"]["class"] == "FolderDataModule"
    # the same rooms, to the millimetre
    found = metrics["all_pixels"]["overall"]
    assert found["rmse"] == pytest.approx(metrics_of(run)["all_pixels"]["overall"]["rmse"], 1e-2)
    assert 0 < found["boundary_f1"] < 1
    after = files_of(run)
    assert {path: after[path] for path in before} == before
    elsewhere = shutil.copytree(root, tmp_path / "more" / "street")
    next((elsewhere / "test" / "rgb").iterdir()).rename(elsewhere / "test" / "rgb" / "99.png")
    depths = elsewhere / "test" / "depth"
    next(
        path for path in depths.iterdir() if not (elsewhere / "test/rgb" / path.name).exists()
    ).rename(depths / "99.png")
    other[3] = str(elsewhere)
    assert command("evaluate", run, *other) == 0
    assert (run / "eval" / "FolderDataModule_street_2" / "metrics.json").is_file()
    other[3] = str(elsewhere / "test")  # one set without splits, all of it for testing
    assert command("evaluate", run, *other, "--data.test_fraction", "1.0") == 0
    assert (run / "eval" / "FolderDataModule_test_test_fraction_1.0" / "metrics.json").is_file()
