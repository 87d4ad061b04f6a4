"""A published checkpoint becomes a run that the other tools accept."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from depthbal import load_predictor
from depthbal.losses import MSELoss
from depthbal.models import ResNetMFF
from depthbal.priors import Histogram
from depthbal.training import DepthTask, open_run
from depthbal.training.convert import convert_checkpoint
from tests.data.make_files import noise_image, write_nyud2
from tests.shared import SHARED, needs_shared
from tests.training.helpers import command, files_of, fit_prior, metrics_of


@pytest.fixture(scope="module")
def donor():
    torch.manual_seed(0)
    model = ResNetMFF().eval()
    model.initialise_bias(3.0)
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory, donor):
    path = tmp_path_factory.mktemp("published") / "checkpoint.pth.tar"
    weights = {f"module.{name}": value for name, value in donor.state_dict().items()}
    metric = {"overall": {"RMSE": np.float64(1.5)}}
    torch.save({"epoch": 19, "error": np.float32(2), "metric": metric, "state_dict": weights}, path)
    return path


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "converted"
    assert command("convert", file, "--out", out) == 0
    return out


def test_the_run_predicts_what_the_published_network_gives(run, donor):
    image = noise_image(48, 64)
    predictor = load_predictor(run)
    assert predictor.short_side == 240
    predictor.short_side = 48  # so small a picture is quicker
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        raw = donor(pixels)
    expected = functional.interpolate(raw, (48, 64), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(predictor.predict(image), expected[0, 0], rtol=1e-4, atol=1e-5)


def test_the_run_is_evaluated_raw_on_the_benchmarks_files(run, tmp_path, capsys):
    write_nyud2(tmp_path, scenes=2, n_test=2)
    small = ["--data.short_side=24", "--data.crop_size=[20,28]", "--data.root", tmp_path]
    assert command("evaluate", run, "--device", "cpu", *small) == 0
    (result,) = (run / "eval").glob("*/metrics.json")  # the converted run has no data of its own
    metrics = metrics_of(result.parent)
    assert metrics["protocol"]["readout"] == "raw"
    assert metrics["protocol"]["epochs"] == 20
    # depths from 1 m to 9 m, the untrained network says about 3 m everywhere
    assert 1 < metrics["overall"]["rmse"] < 6


def test_what_the_file_says_beside_its_weights_is_kept(run, file):
    versions = json.loads((run / "run.json").read_text())
    assert versions["converted_from"] == str(file)
    metric = {"overall": {"RMSE": 1.5}}
    assert versions["published"] == {"epoch": 19, "error": 2.0, "metric": metric}


def test_its_training_cannot_be_continued_but_another_can_start_from_its_weights(run, file, capsys):
    before = files_of(run)
    assert command("train", "--resume", run) == 2
    message = capsys.readouterr().err
    assert "converted from the published checkpoint" in message
    assert f"--model.model.weights {file}" in message
    assert "Traceback" not in message
    assert files_of(run) == before


def test_a_training_that_starts_from_it_starts_with_its_function(file, donor):
    task = DepthTask(ResNetMFF(weights=str(file)), MSELoss())
    fit_prior(task, Histogram([1.0, 2.0, 9.0], [1, 9]))  # its mean is not the donor's bias
    state = donor.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in task.model.state_dict().items())


@needs_shared
def test_the_published_counts_are_the_benchmarks(run):
    histogram = open_run(run).histogram()
    text = (SHARED / "facts" / "nyud2_train_pixel_counts.json").read_text()
    np.testing.assert_array_equal(histogram.counts, json.loads(text)["counts"][7:])
    assert (histogram.edges[0], histogram.edges[-1]) == (0.7, 10.0)


def test_a_balanced_loss_gets_its_prior_and_reads_out_the_mean(file, tmp_path):
    run = convert_checkpoint(
        file,
        tmp_path / "run",
        criterion="GAILoss",
        criterion_args={"init_noise_sigma": 1.5, "n_components": 4},
        readout="mean",
        root=".",
        overwrite=False,
    )
    predictor = load_predictor(run.path)
    assert predictor.readout == "mean"
    assert predictor.label_range == (0.7, 10.0)
    assert float(predictor.criterion.noise_sigma) == pytest.approx(1.5)
    # at a certain prediction far beyond the range the posterior mean stays inside it
    assert float(predictor.read_out(torch.tensor([40.0]))["mean"]) < 10.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--criterion", "GIALoss"], "GAILoss"),
        (["--criterion", "MSELoss", "--criterion-args", '{"sigma": 1}'], "sigma"),
        (["--criterion-args", "{sigma"], "--criterion-args"),
        (None, "Missing"),
    ],
)
def test_nothing_is_written_when_the_file_the_loss_or_an_argument_is_refused(
    file, tmp_path, options, message, capsys
):
    bad = tmp_path / "bad.pth.tar"
    torch.save({"state_dict": {"module.E.conv1.weight": torch.zeros(1)}}, bad)
    line = [bad] if options is None else [file, *options]
    assert command("convert", *line, "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
