"""A run scored again: what it gives, where it goes, and balanced afterwards."""

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
from tests.data.make_files import SMALL, write_file, write_nyud2
from tests.training.helpers import (
    Changed,
    change_checkpoint,
    checkpoint_of,
    command,
    files_of,
    in_eigen_crop,
    metrics_of,
    pretend_errors,
    rooms_of_the_test,
    tiny_config,
    train_tiny,
)

RANGE = (0.7, 10.0)


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


def test_a_result_says_what_was_scored_and_how(finished_run):
    metrics = metrics_of(finished_run)
    assert set(metrics["readout"]) == {"raw", "clamped", "mean"}
    assert metrics["bins"][0]["from_m"] == 0.7
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


def test_whole_images_are_scored_by_several_protocols_and_alignments_in_one_pass(run, capsys):
    alone = {}
    for name in ("eigen", "whole"):
        alone[name], folder = evaluate_run(run, protocol=name)
        assert (folder, alone[name]) == (run / "eval" / name, metrics_of(folder))
        assert alone[name]["protocol"]["name"] == name
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
    for image, depth in rooms_of_the_test():  # Eigen's errors are means over images
        inside, preds = in_eigen_crop(depth), predictor.predict(image)
        aligned = preds * (np.median(depth[inside]) / np.median(preds[inside]))
        clipped = (np.clip(p, 1e-3, 10)[inside].astype(np.float64) for p in (preds, aligned))
        errors.append([rmse(p, depth[inside]) for p in clipped])
    median = next(row for row in rows if row["readout"] == "median_aligned")
    found = alone["eigen"]["overall"]["rmse"], median["rmse"]
    assert found == pytest.approx(np.mean(errors, 0).tolist(), rel=1e-4)


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


def test_scores_are_those_of_the_predictions_balanced_by_hand_and_say_so(mse_run, capsys):
    before = files_of(mse_run)
    assert command("evaluate", mse_run, "--posthoc=0.8", "--device=cpu") == 0
    assert "balanced afterwards (sigma 0.8)" in " ".join(capsys.readouterr().out.split())
    folder = mse_run / "eval" / "posthoc_0.8"
    metrics = metrics_of(folder)
    told = metrics["protocol"]["posthoc"]
    assert (told["noise_sigma"], told["sigma_from"]) == (0.8, "given")
    assert "training histogram" in told["prior"]
    assert metrics["protocol"]["noise_sigma"] == 0.8
    assert not {"posthoc", "noise_sigma"} & set(metrics_of(mse_run)["protocol"])
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


def test_auto_takes_the_last_validation_error_up_to_the_checkpoints_epoch(mse_run, run, tmp_path):
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
    pretend_errors(plain, 0.7, "")  # max_steps cut the last epoch off before it was validated
    sigma, source = posthoc_sigma(open_run(plain), "last", "auto")
    assert sigma == pytest.approx(sigmas[0], rel=5e-3)
    assert "val/rmse 0.7 of epoch 0" in source
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
        write_file(root / "test" / "rgb" / f"{index}.png", image)
        write_file(root / "test" / "depth" / f"{index}.png", (depth * 1000).astype(np.uint16))
    other = ["--data", "FolderDataModule", "--data.root", str(root), "--device", "cpu"]
    assert command("evaluate", run, *other, "--edges") == 0
    metrics = metrics_of(run / "eval" / "FolderDataModule_street")
    found = metrics["overall"]["boundary_f1"]
    assert 0 < found < 1
    assert f"Edges, overall: boundary_f1 {found:.3f}" in capsys.readouterr().out
    assert metrics["protocol"]["data"]["class"] == "FolderDataModule"
    # the same rooms, to the millimetre
    found, expected = (one["all_pixels"]["overall"]["rmse"] for one in (metrics, metrics_of(run)))
    assert found == pytest.approx(expected, 1e-2)
    after = files_of(run)
    assert {path: after[path] for path in before} == before
    elsewhere = shutil.copytree(root, tmp_path / "more" / "street")
    for part in ("rgb", "depth"):
        (elsewhere / "test" / part / "0.png").rename(elsewhere / "test" / part / "99.png")
    other[3] = str(elsewhere)
    assert command("evaluate", run, *other) == 0
    assert (run / "eval" / "FolderDataModule_street_2" / "metrics.json").is_file()
    other[3] = str(elsewhere / "test")  # one set without splits, all of it for testing
    assert command("evaluate", run, *other, "--data.test_fraction", "1.0") == 0
    assert (run / "eval" / "FolderDataModule_test_test_fraction_1.0" / "metrics.json").is_file()


# ---- examples: what was seen, what is true, what was predicted ----


def check_content(folder, run, limits, inside):
    """Compare the examples with predictions made from the files."""
    with np.load(folder / "examples.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays["reason"].tolist()) <= {"best", "median", "worst", "rare"}
    assert len(set(arrays["index"].tolist())) == len(arrays["index"]) >= 4
    predictor, rooms = load_predictor(run), rooms_of_the_test()
    for number, index in enumerate(arrays["index"].tolist()):
        image, depth = rooms[index]
        assert arrays["name"][number] == f"rooms/test/{index:05d}"
        np.testing.assert_allclose(arrays[f"truth_{number:02d}"], depth, rtol=0, atol=6e-4)
        assert np.abs(arrays[f"image_{number:02d}"].astype(int) - image).max() <= 1
        preds = predictor.predict(image).clip(*limits)
        np.testing.assert_allclose(arrays[f"pred_{number:02d}"], preds, rtol=1e-4, atol=6e-4)
        errors = (preds - depth)[inside(depth)].astype(np.float64)
        assert arrays["rmse"][number] == pytest.approx(math.sqrt(np.mean(errors**2)), rel=1e-4)
        assert arrays[f"image_{number:02d}"].dtype == np.uint8
        assert arrays[f"pred_{number:02d}"].dtype == np.float32


def test_examples_hold_image_truth_prediction_and_error_those_of_eigen_clamped(run):
    check_content(run, run, (0, np.inf), lambda depth: depth >= 0.7)
    check_content(evaluate_run(run, protocol="eigen")[1], run, (1e-3, 10), in_eigen_crop)


def test_nothing_is_kept_larger_than_320_pixels(monkeypatch, run):
    monkeypatch.setattr("depthbal.examples.LONGEST_SIDE", 20)
    evaluate_run(run)
    with np.load(run / "examples.npz", allow_pickle=False) as arrays:
        for part, size in (("image", (15, 20, 3)), ("truth", (15, 20)), ("pred", (15, 20))):
            assert arrays[f"{part}_00"].shape == size
        _, depth = rooms_of_the_test()[int(arrays["index"][0])]
        assert set(np.unique(arrays["truth_00"])) <= set(np.unique(depth.round(3)))


def test_pictures_show_the_examples_and_replace_older_ones(run):
    folder = run / "predictions"
    (folder / "test_00099.png").write_bytes(b"of an earlier evaluation")
    (folder / "mine.png").write_bytes(b"kept")
    evaluate_run(run)
    with np.load(run / "examples.npz", allow_pickle=False) as arrays:
        examples = dict(arrays)
    expected = [f"test_{index:05d}.png" for index in sorted(examples["index"].tolist())]
    assert sorted(path.name for path in folder.iterdir()) == ["mine.png", *expected]
    picture = cv2.imread(str(folder / f"test_{examples['index'][0]:05d}.png"))
    assert picture.shape == (24, 3 * 32, 3)
    assert np.array_equal(picture[:, :32, ::-1], examples["image_00"])
