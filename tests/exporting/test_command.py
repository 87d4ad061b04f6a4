import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from depthbal.data.images import write_depth_png
from depthbal.errors import ConfigError, RunFolderError
from depthbal.exporting.command import export
from depthbal.exporting.formats import open_graph
from depthbal.predictor import load_predictor


def test_a_run_becomes_one_file_that_predicts_as_the_run_does(run, capsys):
    export([str(run), "--format", "onnx"])
    printed = capsys.readouterr().out
    assert "image uint8 (batch, 24, 32, 3) RGB -> depth (batch, 24, 32) m" in printed
    assert "Largest difference from PyTorch" in printed
    assert "on 4 test images" in printed
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    found = open_graph("onnx", run / "model.onnx")(picture[None])
    assert np.abs(found[0] - load_predictor(run).predict(picture)).max() < 2e-3
    entries = {e.key: e.value for e in onnx.load(run / "model.onnx").metadata_props}
    protocol = json.loads(entries["protocol"])
    assert protocol["overall"] == json.loads((run / "metrics.json").read_text())["overall"]


def test_a_file_of_other_than_the_defaults_says_so_in_its_name(run):
    names = {
        "model_best.pt2": ["--checkpoint", "best"],
        "model_raw.pt2": ["--readout", "raw"],
        "model_best_clamped.pt2": ["--checkpoint", "best", "--readout", "clamped"],
        "model.pt2": ["--readout", "mean"],  # the run's own
    }
    for name, options in names.items():
        (run / name).write_text("mine")
        with pytest.raises(RunFolderError, match=rf"{name} exists"):
            export([str(run), "--format", "torch", *options])


def test_a_network_balanced_afterwards_is_exported_under_its_sigma(run, monkeypatch):
    predictor = load_predictor(run)
    seen = {}

    def load(path, **options):
        seen.update(options)
        return predictor

    monkeypatch.setattr("depthbal.exporting.command.load_predictor", load)
    (run / "model_best_posthoc_0.8.onnx").write_text("mine")
    with pytest.raises(RunFolderError, match=r"model_best_posthoc_0\.8\.onnx exists"):
        export([str(run), "--posthoc", "0.8", "--checkpoint", "best"])
    assert seen == {"checkpoint": "best", "posthoc_sigma": 0.8}


def test_an_existing_file_is_kept_unless_told(run):
    (run / "model.pt2").write_text("mine")
    with pytest.raises(RunFolderError, match="--overwrite"):
        export([str(run), "--format", "torch"])
    assert (run / "model.pt2").read_text() == "mine"
    with pytest.warns(UserWarning, match=r"of 32 x 64 .* tested on 24 x 32.*short side of 24"):
        export([str(run), "--format", "torch", "--overwrite", "--size", "32", "64"])
    picture = np.zeros((1, 32, 64, 3), np.uint8)
    assert open_graph("torch", run / "model.pt2")(picture).shape == (1, 32, 64)
    files = {"depthbal.json": ""}
    torch.export.load(run / "model.pt2", extra_files=files)
    protocol = json.loads(files["depthbal.json"])["protocol"]
    assert protocol["name"] == "nyud2_dir"
    assert protocol["overall"] is None  # measured at another scale


def test_without_its_data_a_run_is_compared_on_given_images(run, tmp_path, capsys):
    config = run / "config.yaml"
    text = config.read_text().replace("RoomsDataModule", "NYUD2DataModule")
    config.write_text(text)
    with pytest.raises(ConfigError, match="--image FILE"):
        export([str(run)])
    picture = tmp_path / "grey.png"
    write_depth_png(picture, np.linspace(0, 60, 24 * 32, dtype=np.float32).reshape(24, 32))
    export([str(run), "--image", str(picture), "--format", "torch"])
    assert "on 1 given images" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        export([str(tmp_path / "missing")])
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunFolderError, match="checkpoint"):
        export([str(run)])


def test_a_folder_is_no_file_to_write(run, tmp_path):
    with pytest.raises(RunFolderError, match="is a folder"):
        export([str(run), "--out", str(tmp_path), "--overwrite"])


def test_the_numbers_in_the_file_are_those_of_its_read_out(run):
    export([str(run), "--readout", "raw"])
    entries = {e.key: e.value for e in onnx.load(run / "model_raw.onnx").metadata_props}
    protocol = json.loads(entries["protocol"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert protocol["readout"] == entries["readout"] == "raw"
    assert protocol["overall"] == metrics["readout"]["raw"]["overall"]
    assert protocol["overall"] != metrics["overall"]


def test_a_run_that_predicts_no_depth_is_refused_by_its_label(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["protocol"]["label"] = {"name": "age", "unit": "years"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ConfigError, match="predicts age; this tool is for networks of depth"):
        export([str(run)])


def test_given_images_of_another_size_than_the_tested_crop_get_no_numbers(run, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["protocol"]["data"]["crop_size"] = [20, 28]
    (run / "metrics.json").write_text(json.dumps(metrics))
    picture = tmp_path / "grey.png"
    write_depth_png(picture, np.full((32, 64), 3, np.float32))
    with pytest.warns(UserWarning, match=r"protocol\.overall is null"):
        export([str(run), "--image", str(picture), "--format", "torch"])
