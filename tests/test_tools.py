"""The commands as somebody types them, from training to a predicted picture."""

import errno
import json
import logging
import os
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from depthbal.training.posthoc import posthoc_sigma

from depthbal import load_predictor
from tests.data.make_files import SMALL, noise_image, write_image, write_nyud2
from tests.training.helpers import TOOLS, tiny_config

ROOMS = TOOLS.parent / "configs" / "rooms"
TINY_ROOMS = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.size=[24,32]"]
TINY_ROOMS += ["--data.n_train=8", "--data.n_val=4", "--data.n_test=4", "--data.batch_size=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(autouse=True)
def somewhere_else(folder, monkeypatch):
    """Work in an empty folder, so that no command can rely on where the repository lies."""
    (folder / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(folder / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)


def tool(name: str, *arguments: str) -> int:
    """Run a tool's file as a script and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(TOOLS / name), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
    return end.value.code


@pytest.fixture
def trained(folder):
    """The run of the default config; trained by whichever test asks first."""
    run = folder / "work" / "runs" / "rooms-gai"
    if not run.exists():
        assert tool("train.py", *TINY_ROOMS) == 0
    return run


@pytest.fixture
def plain(folder):
    """The run of the squared error; trained by whichever test asks first."""
    run = folder / "work" / "runs" / "rooms-mse"
    if not run.exists():
        assert tool("train.py", "--config", ROOMS / "mse.yaml", *TINY_ROOMS) == 0
    return run


def test_training_without_a_config_runs_the_rooms_and_prints_the_result(folder, capsys):
    assert tool("train.py", *TINY_ROOMS, "--out", "fresh") == 0
    printed = capsys.readouterr().out
    for expected in (
        "Balanced mask",
        "All pixels",
        "read-out mean",
        "few",
        "took",
        "Run folder: fresh",
    ):
        assert expected in printed
    assert json.loads((folder / "work" / "fresh" / "metrics.json").read_text())["few"]["count"] > 0


def test_evaluation_repeats_the_numbers_of_training(trained, capsys):
    before = json.loads((trained / "metrics.json").read_text())
    assert tool("evaluate.py", trained, "--device", "cpu") == 0
    assert json.loads((trained / "metrics.json").read_text()) == before
    assert "Balanced mask" in capsys.readouterr().out


def test_evaluation_by_other_protocol_and_checkpoint(trained, capsys):
    arguments = ["--protocol", "eigen", "--checkpoint", "best", "--device", "cpu"]
    assert tool("evaluate.py", trained, *arguments) == 0
    metrics = json.loads((trained / "metrics_eigen_best.json").read_text())
    assert metrics["protocol"]["checkpoint"] == "best"
    assert "Eigen crop" in capsys.readouterr().out


def test_evaluation_balances_a_plain_run_afterwards(plain, capsys):
    before = json.loads((plain / "metrics.json").read_text())
    assert tool("evaluate.py", plain, "--posthoc", "0.8", "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "balanced afterwards (sigma 0.8)" in printed
    assert "metrics_posthoc_0.8.json" in printed
    metrics = json.loads((plain / "metrics_posthoc_0.8.json").read_text())
    assert metrics["protocol"]["posthoc"]["noise_sigma"] == 0.8
    assert metrics["all_pixels"]["overall"] != before["all_pixels"]["overall"]
    assert json.loads((plain / "metrics.json").read_text()) == before


@pytest.mark.parametrize("sigma", ["1", "auto"])
def test_a_balanced_run_is_not_balanced_afterwards(trained, sigma, capsys):
    assert tool("evaluate.py", trained, "--posthoc", sigma, "--device", "cpu") == 2
    message = capsys.readouterr().err
    assert "GAILoss" in message
    assert "balances already" in message
    assert not list(trained.glob("*posthoc*"))


@pytest.mark.parametrize(
    ("sigma", "message"), [("0", "positive"), ("-1", "positive"), ("much", "SIGMA")]
)
def test_a_sigma_that_is_none_is_refused(plain, sigma, message, capsys):
    assert tool("evaluate.py", plain, "--posthoc", sigma, "--device", "cpu") == 2
    assert message in capsys.readouterr().err


def test_prediction_balances_a_plain_run_afterwards(plain, folder):
    image = noise_image(50, 70)
    write_image(folder / "work" / "plain.png", image)
    arguments = [plain, "plain.png", "--device", "cpu", "--out"]
    assert tool("predict.py", *arguments, "balanced", "--posthoc", "auto") == 0
    written = cv2.imread("balanced/plain_depth.png", cv2.IMREAD_UNCHANGED) / 1000
    sigma = posthoc_sigma(plain, "last", "auto").noise_sigma
    expected = load_predictor(plain, posthoc_sigma=sigma).predict(image)
    assert np.abs(written - expected).max() <= 0.0005 + 1e-6
    assert np.abs(written - load_predictor(plain).predict(image)).max() > 0.01


def test_the_config_with_depth_noise_trains_logs_and_draws_it(folder):
    config = ROOMS / "gai_depth_noise.yaml"
    assert tool("train.py", "--config", config, *TINY_ROOMS, "--out", "depth_noise") == 0
    run = folder / "work" / "depth_noise"
    assert cv2.imread(str(run / "noise.png")) is not None
    assert "train/noise_b" in (run / "metrics.csv").read_text()
    assert load_predictor(run).criterion.noise.depends_on_preds


def test_prediction_of_a_folder_asks_for_its_pictures(trained, folder, capsys):
    assert tool("predict.py", trained, folder / "work") == 2
    assert f"is a folder; name its pictures, such as {folder / 'work'}/*.jpg" in (
        capsys.readouterr().err
    )


def test_prediction_writes_millimetres_and_a_colour_picture(trained, folder, capsys):
    image = noise_image(50, 70)
    write_image(folder / "work" / "room.png", image)
    assert tool("predict.py", trained, "room.png", "--out", "depth", "--device", "cpu") == 0
    written = cv2.imread("depth/room_depth.png", cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    expected = load_predictor(trained).predict(image)
    assert np.abs(written / 1000 - expected).max() <= 0.0005 + 1e-6
    assert cv2.imread("depth/room_colour.png").shape == (50, 70, 3)
    # a second time it would overwrite
    assert tool("predict.py", trained, "room.png", "--out", "depth") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert tool("predict.py", trained, "room.png", "--out", "depth", "--overwrite") == 0


def test_pictures_of_one_name_are_refused_before_anything_is_written(trained, folder, capsys):
    for name in ("a", "b"):
        write_image(folder / "work" / name / "room.png", noise_image(24, 32))
    assert tool("predict.py", trained, "a/room.png", "b/room.png", "--out", "both") == 2
    assert "room" in capsys.readouterr().err
    assert not (folder / "work" / "both").exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("evaluate.py", ["nowhere"]),
        ("predict.py", ["nowhere", "room.png"]),
        ("train.py", ["--resume", "nowhere"]),
        ("train.py", ["--config", "nowhere"]),
    ],
)
def test_something_missing_is_one_line_without_traceback(name, arguments, capsys):
    assert tool(name, *arguments) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message
    assert "Traceback" not in message


def test_an_unknown_setting_of_the_data_is_named(trained, capsys):
    assert tool("evaluate.py", trained, "--data.n_tets", "3") == 2
    assert "n_tets" in capsys.readouterr().err


def test_an_unreadable_picture_is_named(trained, folder, capsys):
    (folder / "work" / "torn.png").write_bytes(b"no picture")
    assert tool("predict.py", trained, "torn.png", "--out", "torn", "--device", "cpu") == 2
    assert "torn.png" in capsys.readouterr().err


def test_files_of_the_benchmark_are_trained_moved_and_evaluated(folder, tmp_path, monkeypatch):
    write_nyud2(tmp_path / "here", scenes=12)
    section = {
        "class_path": "depthbal.data.NYUD2DataModule",
        "init_args": {"root": "nowhere", "val_fraction": 0.2, **SMALL},
    }
    config = tiny_config(tmp_path / "nyu.yaml", data=section)
    run = tmp_path / "run"
    arguments = ["--config", config, "--out", run, "--trainer.max_epochs", "1"]
    here = os.path.relpath(tmp_path / "here")
    assert tool("train.py", *arguments, "--data.root", here) == 0
    monkeypatch.chdir(tmp_path)  # trained from one folder with a relative root, used from another
    assert tool("evaluate.py", run, "--device", "cpu") == 0
    assert tool("train.py", "--resume", run, "--trainer.max_epochs", "2") == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert tool("evaluate.py", run, "--device", "cpu") == 2
    assert tool("evaluate.py", run, "--device", "cpu", "--data.root", tmp_path / "there") == 0
    assert (run / "checkpoints" / "best.ckpt").exists()


def test_an_image_that_breaks_during_training_is_named(tmp_path, capsys):
    data = write_nyud2(tmp_path / "root", scenes=12)
    torn = data / "nyu2_train" / "scene03_out" / "2.jpg"
    section = {
        "class_path": "depthbal.data.NYUD2DataModule",
        "init_args": {"root": str(tmp_path / "root"), "val_fraction": 0.0, **SMALL},
    }
    section["init_args"]["num_workers"] = 1
    config = tiny_config(tmp_path / "nyu.yaml", data=section)
    torn.write_bytes(torn.read_bytes()[:100])
    assert tool("train.py", "--config", config, "--out", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert "scene03_out/2.jpg" in message
    assert "Traceback" not in message


def test_how_validation_was_split_off_is_said_once(tmp_path, capfd):
    write_nyud2(tmp_path / "root", scenes=1, per_scene=21)  # batches of 4 leave one of 17
    section = {
        "class_path": "depthbal.data.NYUD2DataModule",
        "init_args": {"root": str(tmp_path / "root"), "val_fraction": 0.2, **SMALL},
    }
    config = tiny_config(tmp_path / "nyu.yaml", data=section)
    arguments = ["--config", config, "--out", tmp_path / "run", "--trainer.max_epochs", "1"]
    assert tool("train.py", *arguments) == 0
    printed = "".join(capfd.readouterr())
    assert printed.count("contiguous block") == 1
    assert printed.count("leaves out 1 of 17") == 1
    assert "GPU available" not in printed  # the engine's small talk stays away
    assert not logging.getLogger("depthbal").handlers


@pytest.mark.parametrize("name", ["train.py", "predict.py"])
def test_a_folder_below_a_file_is_one_line(name, trained, folder, capsys):
    (folder / "work" / "file").touch()
    write_image(folder / "work" / "one.png", noise_image(24, 32))
    arguments = [trained, "one.png"] if name == "predict.py" else TINY_ROOMS
    assert tool(name, *arguments, "--out", "file/run") == 2
    message = capsys.readouterr().err
    assert "file" in message
    assert "--out" in message
    assert len(message.splitlines()) == 1


def test_a_folder_without_permission_is_one_line(folder, monkeypatch, capsys):
    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert tool("train.py", *TINY_ROOMS, "--out", "forbidden") == 2
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 1
    assert "Permission denied" in message[0]
    assert "--out" in message[0]
