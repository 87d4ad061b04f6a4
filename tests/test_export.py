import json
import shutil

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from scipy.stats import truncnorm
from torch import nn

from depthbal import Predictor, load_predictor
from depthbal.commands.export import main as export
from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation import Label
from depthbal.export import ReadoutTable, export_predictor, open_graph
from depthbal.losses import DepthNoise, GAILoss, MSELoss, truncated_normal_mean
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import Histogram
from depthbal.training.train import train

RANGE = (0.7, 10.0)
SPEC = {"short_side": None, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
SIZE = (24, 36)
TINY = (
    "--config rooms/gai --trainer.max_epochs=1 --model.model=tests.test_export.HalfSize "
    "--data.size=[24,36] --data.crop_size=[24,36] --data.n_train=12 --data.n_val=4 --data.n_test=4"
)
HISTOGRAM = Histogram.regular(0.7, 10.0, 0.1)
HISTOGRAM.update(torch.linspace(0.71, 9.99, 5000) ** 0.7 + 0.2)


class HalfSize(nn.Module):
    """Depths from below the label range to beyond it, at half the images' size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, stride=2, padding=1)
        nn.init.constant_(self.conv.bias, 5.0)
        self.conv.weight.data.copy_(torch.linspace(-1, 1.4, 27).view(1, 3, 3, 3))
        self.change = lambda depth, images: depth

    def forward(self, images):
        return self.change(self.conv(images), images)


def eigenvalues(depth, images):
    return depth + torch.linalg.eigvals(images[0, 0, :3, :3]).real.sum()


def moody(depth, images):  # says something else than what is recorded
    return depth + (0.0 if torch.compiler.is_compiling() else 1.0)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def make_predictor(readout):
    if readout == "posthoc":
        balance = BalanceMap(HISTOGRAM, 1.0, RANGE)
        return Predictor(HalfSize(), MSELoss(), SPEC, "mean", RANGE, posthoc=balance)
    loss = GAILoss(noise=DepthNoise(0.3, slope=0.1), label_range=RANGE)
    return Predictor(HalfSize(), loss, SPEC, readout)


def expected_depth(readout, images):
    model = make_predictor(readout)
    return np.stack([model.predict(image) for image in images])


def entries(path):
    """The metadata of a written file."""
    if path.suffix == ".onnx":
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        texts = ("unit", "readout", "producer", "input", "output")
        return {key: text if key in texts else json.loads(text) for key, text in found.items()}
    files = {"depthbal.json": ""}
    torch.export.load(path, extra_files=files)
    return json.loads(files["depthbal.json"])


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_the_table_is_the_mean_of_the_truncated_normal(sigma):
    table = ReadoutTable(lambda p: truncated_normal_mean(p, sigma, RANGE), RANGE)
    p = np.linspace(-3.0, 14.0, 700)
    expected = truncnorm.mean((RANGE[0] - p) / sigma, (RANGE[1] - p) / sigma, loc=p, scale=sigma)
    assert np.abs(table(torch.from_numpy(p)).numpy() - expected).max() < 1.5e-4
    far = torch.tensor([-1e12, -1e6, -300.0, 300.0, 1e6, 1e12])  # it goes to its ends
    expected = truncated_normal_mean(far.double(), sigma, RANGE)
    assert torch.allclose(table(far).double(), expected, atol=1.5e-4)
    assert torch.equal(table(far), table(far).clamp(*RANGE))


@pytest.mark.parametrize("function", [lambda p: -p.clamp(0, 9), lambda p: p.clamp(0, 9).log()])
def test_what_does_not_increase_or_is_not_finite_is_refused(function):
    with pytest.raises(ConfigError, match="cannot be put into a table"):
        ReadoutTable(function, RANGE)


@pytest.mark.parametrize(
    ("name", "readout"),
    [
        *(("model.onnx", readout) for readout in ("raw", "mean", "posthoc")),
        *(("model.pt2", readout) for readout in ("clamped", "mean")),
    ],
)
def test_a_file_gives_the_predictors_depth_and_says_what_it_is(name, readout, tmp_path):
    path, form = tmp_path / name, "onnx" if name == "model.onnx" else "torch"
    model = make_predictor(readout)
    largest, mean = export_predictor(model, form, path, pictures(2), {"name": "mine"})
    tolerance = 1e-2 if readout == "posthoc" else 2e-4  # its map is steep at the ends
    assert 0 <= mean <= largest < tolerance
    for count in (1, 3):
        images = pictures(count, seed=count)
        found, expected = open_graph(form, path)(images), expected_depth(readout, images)
        assert (found.shape, found.dtype) == ((count, *SIZE), np.float32)
        assert np.abs(found - expected).max() < tolerance
    assert (np.abs(found - expected_depth("raw", images)).max() > 0.1) == (readout != "raw")
    about = entries(path)
    assert (about["unit"], about["height"], about["width"]) == ("m", *SIZE)
    assert (about["readout"], about["label_range"]) == (model.readout, [0.7, 10.0])
    assert about["posthoc_noise_sigma_m"] == (1.0 if readout == "posthoc" else None)
    assert about["protocol"] == {"name": "mine"}
    if form == "onnx":
        onnx.checker.check_model(path)


@pytest.mark.parametrize(
    ("change", "form", "message"),
    [
        (eigenvalues, "onnx", r"HalfSize cannot be exported as onnx: .*eig.*format torch"),
        (moody, "torch", "differs from PyTorch by up to 1 m"),
        (lambda depth, _: depth.mean((2, 3)), "onnx", r"depth maps .* HalfSize gives \(2, 1\)"),
        (lambda depth, _: (depth, depth), "torch", "depth maps .* HalfSize gives tuple"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_the_file_kept(change, form, message, tmp_path):
    (tmp_path / "model").write_text("earlier")
    model = make_predictor("raw")
    model.model.change = change
    with pytest.raises(ConfigError, match=message):
        export_predictor(model, form, tmp_path / "model", pictures(2), {})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    cv2.imwrite(str(folder / "picture.png"), pictures(1)[0])
    return train(TINY.split(), str(folder / "run"))[0].path


@pytest.fixture
def run(finished_run, tmp_path):
    shutil.copy(finished_run.parent / "picture.png", tmp_path)
    return shutil.copytree(finished_run, tmp_path / "run")


def test_a_run_becomes_one_file_that_predicts_as_the_run_does(run, capsys):
    expected = json.loads((run / "metrics.json").read_text())["overall"]
    (run / "metrics.json").unlink()  # the numbers are those of scores.npz
    export([str(run), "--format", "onnx"])
    printed = capsys.readouterr().out
    assert "image uint8 (batch, 24, 36, 3) RGB -> depth (batch, 24, 36) m" in printed
    assert "Largest difference from PyTorch" in printed
    assert "on 4 test images" in printed
    found = open_graph("onnx", run / "model.onnx")(pictures(1))[0]
    predicted = load_predictor(run, [HalfSize]).predict(pictures(1)[0])
    assert np.abs(found - predicted).max() < 2e-3
    protocol = entries(run / "model.onnx")["protocol"]
    assert (protocol["name"], protocol["overall"]) == ("nyud2_dir", expected)


def test_the_numbers_in_the_file_are_those_of_its_read_out_and_size(run):
    metrics = json.loads((run / "metrics.json").read_text())
    given = ["--image", str(run.parent / "picture.png")]
    export([str(run), "--format", "torch", "--readout", "raw", *given])
    raw = entries(run / "model_raw.pt2")
    assert raw["readout"] == raw["protocol"]["readout"] == "raw"
    assert raw["protocol"]["overall"] == metrics["readout"]["raw"]["overall"]
    assert raw["protocol"]["overall"] != metrics["overall"]
    for images in ([], [*given, "--overwrite"]):
        with pytest.warns(UserWarning, match=r"of 32 x 64 .* tested on 24 x 36.*short side of 24"):
            export([str(run), "--format", "torch", "--size", "32", "64", *images])
        found = open_graph("torch", run / "model.pt2")(np.zeros((1, 32, 64, 3), np.uint8))
        assert found.shape == (1, 32, 64)
        protocol = entries(run / "model.pt2")["protocol"]
        assert (protocol["name"], protocol["overall"]) == ("nyud2_dir", None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("model_best_clamped.pt2", "--checkpoint best --readout clamped"),
        ("model.pt2", "--readout mean"),  # the run's own
    ],
)
def test_the_files_name_says_what_is_not_the_default(run, name, options):
    (run / name).write_text("mine")
    with pytest.raises(RunFolderError, match=rf"{name} exists.*--overwrite"):
        export([str(run), "--format", "torch", *options.split()])
    assert (run / name).read_text() == "mine"


def test_without_its_data_and_evaluation_a_run_is_compared_on_given_images(run, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {"class_path": "depthbal.data.NYUD2DataModule", "init_args": {"root": "/gone"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "scores.npz").unlink()
    with pytest.raises(ConfigError, match="--image FILE"):
        export([str(run)])
    export([str(run), "--image", str(run.parent / "picture.png"), "--format", "torch"])
    assert "on 1 given images" in capsys.readouterr().out
    assert entries(run / "model.pt2")["protocol"] == {}


def test_what_is_no_run_of_depth_or_no_file_is_refused(run, monkeypatch):
    with pytest.raises(RunFolderError, match="is a folder"):
        export([str(run), "--out", str(run), "--overwrite"])
    age = property(lambda _: Label("age", "years"), lambda *_: None)
    monkeypatch.setattr("depthbal.data.RoomsDataModule.label", age)
    with pytest.raises(ConfigError, match="predicts age; only networks of depth"):
        export([str(run)])
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunFolderError, match="checkpoint"):
        export([str(run)])
    monkeypatch.setattr("depthbal.commands.export.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnx, .* or use --format torch"):
        export([str(run)])
