"""Ages of a folder of pictures: those of the run's own evaluation, and what is refused."""

import csv
import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from scipy.stats import norm, truncnorm
from torch import nn

from depthbal.adapters.age import AgeRegressor, prediction
from depthbal.adapters.age.prediction import predict_ages, write_ages
from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.losses import L1Loss
from depthbal.rebuilding import part_of_state
from depthbal.training.checkpoint_entry import describe_checkpoint
from depthbal.training.tool import run_tool
from tests.adapters.age.helpers import CONFIGS, GreyAges, tiny_config, train_age, weights_of

TOOL = CONFIGS.parents[1] / "tools" / "train_age.py"


def tool(*arguments: object) -> int:
    return run_tool(runpy.run_path(str(TOOL))["main"], [str(argument) for argument in arguments])


SIGMA = 6.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny training with a fixed sigma."""
    folder = tmp_path_factory.mktemp("prediction")
    noise = {"noise": "fixed", "init_noise_sigma": SIGMA}
    criterion = {"criterion": {"class_path": "BNILoss", "init_args": noise}}
    config = tiny_config(folder / "tiny.yaml")
    content = yaml.safe_load(config.read_text())
    content["model"] |= criterion
    config.write_text(yaml.safe_dump(content))
    return train_age("--config", config, "--out", folder / "run")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images of the run as files, named by their place and age."""
    folder = tmp_path_factory.mktemp("pictures")
    source = GreyAges().source("test")
    for index, age in enumerate(source.labels):
        path = folder / ("young" if age < 30 else "old") / f"{index:02d}_{age:.0f}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), source.image(index)[..., ::-1])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_ages_in_the_csv_file_have_the_error_of_the_evaluation(run, pictures, tmp_path, capsys):
    out = tmp_path / "ages.csv"
    assert tool("--predict", run, pictures, "--out", out, "--device", "cpu") == 0
    assert f"40 ages: {out}" in capsys.readouterr().out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "age", "low", "high"]
    assert sorted(row["path"] for row in rows) == sorted(
        path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")
    )
    truth = [float(Path(row["path"]).stem.partition("_")[2]) for row in rows]
    ages = np.array([float(row["age"]) for row in rows])
    metrics = json.loads((run / "metrics.json").read_text())
    assert np.abs(ages - truth).mean() == pytest.approx(metrics["overall"]["mae"], abs=0.01)


def test_intervals_are_those_of_the_truncated_normal_distribution(run, pictures):
    images = sorted(pictures.rglob("*.png"))
    state, low, high = weights_of(run), 19.5, 59.5  # ages 20 to 59
    model = AgeRegressor("test_resnet", library="timm").eval()
    model.load_state_dict(part_of_state(state, "model."))
    pixels = np.stack([cv2.imread(str(image))[..., ::-1] for image in images]) / 127.5 - 1
    with torch.no_grad():
        raw = model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    noise = truncnorm((low - raw) / SIGMA, (high - raw) / SIGMA, raw, SIGMA)
    expected = np.stack([noise.mean(), *(noise.ppf(norm.cdf(tail)) for tail in (-1, 1))], axis=1)
    np.testing.assert_allclose(predict_ages(run, images), expected, atol=1e-3)


def test_a_loss_without_sigma_gives_ages_alone(pictures, tmp_path):
    parts = nn.ModuleDict({"model": AgeRegressor("test_resnet", library="timm"), "loss": L1Loss()})
    entry = describe_checkpoint(parts["model"], parts["loss"], GreyAges().input_spec(), "mean")
    torch.save({"depthbal": entry, "state_dict": parts.state_dict()}, tmp_path / "last.ckpt")
    out = tmp_path / "ages.csv"
    assert tool("--predict", tmp_path / "last.ckpt", pictures / "young", "--out", out) == 0
    lines = out.read_text().splitlines()
    assert len(lines) == 11
    assert all(line.endswith(",,") for line in lines[1:])


def test_an_existing_file_is_kept_unless_told_otherwise(run, pictures, tmp_path, capsys):
    out = tmp_path / "ages.csv"
    out.write_text("mine")
    line = ["--predict", run, pictures / "young", "--out", out]
    assert tool(*line) == 2
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert tool(*line, "--overwrite") == 0
    assert out.read_text().startswith("path,age,low,high\n0")


def test_a_folder_without_pictures_and_a_run_of_depth_are_refused(run, pictures, tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        write_ages(run, tmp_path, tmp_path / "ages.csv", overwrite=False, device="cpu")
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    del content["depthbal"]["input"]["size"]
    torch.save(content, tmp_path / "depth.ckpt")
    with pytest.raises(ConfigError, match=r"tools/predict\.py"):
        predict_ages(tmp_path / "depth.ckpt", sorted(pictures.rglob("*.png")))


@pytest.fixture
def no_prediction(monkeypatch):
    """Any prediction fails: what is refused must be refused before."""
    monkeypatch.setattr(prediction, "load_predictor", None)


@pytest.mark.parametrize("damage", ["truncated", "no image"])
def test_an_unreadable_last_picture_is_named_before_the_first_prediction(
    damage, run, pictures, tmp_path, no_prediction
):
    content = next(pictures.rglob("*.png")).read_bytes()
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "z.png").write_bytes(content[:-40] if damage == "truncated" else b"text")
    with pytest.raises(DataError, match=r"z\.png"):
        write_ages(run, tmp_path, tmp_path / "out" / "ages.csv", overwrite=False, device="cpu")
    assert not (tmp_path / "out" / "ages.csv").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_as_the_file_to_write_is_refused_before_the_first_prediction(
    overwrite, run, pictures, tmp_path, no_prediction
):
    with pytest.raises(RunFolderError, match=r"is a folder; give --out the name of a file"):
        write_ages(run, pictures, tmp_path, overwrite=overwrite, device="cpu")


def test_a_place_that_takes_no_file_is_found_before_the_first_prediction(
    run, pictures, tmp_path, no_prediction
):
    (tmp_path / "note").write_text("a file")
    with pytest.raises(OSError, match="note"):
        write_ages(run, pictures, tmp_path / "note" / "ages.csv", overwrite=False, device="cpu")


def test_a_folder_named_like_a_picture_is_no_picture(run, pictures, tmp_path):
    (tmp_path / "sub.jpg").mkdir()
    content = next(pictures.rglob("*.png")).read_bytes()
    (tmp_path / "sub.jpg" / "me.png").write_bytes(content)
    write_ages(run, tmp_path, tmp_path / "ages.csv", overwrite=False, device="cpu")
    _, line = (tmp_path / "ages.csv").read_text().splitlines()
    assert line.startswith("sub.jpg/me.png,")


def test_a_folder_of_pictures_that_is_missing_or_a_file_is_called_so(run, tmp_path):
    (tmp_path / "me.png").write_text("a file")
    for name, said in (("gone", "does not exist"), ("me.png", "is a file")):
        with pytest.raises(DataError, match=rf"{name} {said}"):
            write_ages(run, tmp_path / name, tmp_path / "ages.csv", overwrite=False, device="cpu")


def test_a_run_without_a_checkpoint_says_how_its_training_goes_on(pictures, tmp_path, capsys):
    assert tool("--predict", tmp_path, pictures, "--out", tmp_path / "ages.csv") == 2
    said = capsys.readouterr().err
    assert f"continue the training with --resume {tmp_path}" in said
    assert "tools/train.py" not in said
