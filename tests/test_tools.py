"""The commands as somebody types them, from training to a predicted picture."""

import errno
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthbal import load_predictor
from depthbal.commands import COMMANDS, main
from depthbal.training import open_run
from depthbal.training.evaluate import posthoc_sigma
from tests.data.make_files import SMALL, noise_image, write_file, write_nyud2
from tests.training.helpers import REPOSITORY, TOOLS, command, pretend_errors, tiny_config

TINY_ROOMS = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.size=[24,32]"]
TINY_ROOMS += ["--data.n_train=8", "--data.n_val=4", "--data.n_test=4", "--data.batch_size=4"]
TINY_ROOMS += ["--data.num_workers=0", "--model.model.encoder=tu-test_resnet"]
TINY_ROOMS += ["--model.model.arch_args={encoder_depth: 4, decoder_channels: [32, 16, 16, 8]}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(autouse=True)
def somewhere_else(folder, monkeypatch):
    """Work in an empty folder, so that no command can rely on where the repository lies."""
    monkeypatch.chdir(folder)


def nyud2_config(folder: Path, **settings: object) -> Path:
    """Write a config of files in the published layout."""
    section = {"class_path": "depthbal.data.NYUD2DataModule", "init_args": {**SMALL, **settings}}
    return tiny_config(folder / "nyu.yaml", data=section)


def tool(name: str, *arguments: object) -> int:
    """Run a tool's file as a script and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(TOOLS / name), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
    return end.value.code


def run_of(name: str) -> Path:
    """Return a run of a rooms config; trained by whichever test asks first."""
    run = Path("runs", f"rooms-{name}")
    if not run.exists():
        assert tool("train.py", "--config", f"rooms/{name}", *TINY_ROOMS) == 0
    return run


def test_help_of_all_commands_needs_no_torch_and_fits_a_screen():
    code = (
        "import contextlib, io, json, sys\n"
        "from depthbal.commands import COMMANDS, main\n"
        "shown = {}\n"
        "for name in (None, *COMMANDS):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        assert main(name, ['--help']) == 0\n"
        "    shown[name or 'depthbal'] = text.getvalue()\n"
        "print(json.dumps([shown, 'torch' in sys.modules]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    shown, torch_was_imported = json.loads(done.stdout.splitlines()[-1])
    assert not torch_was_imported
    assert all(name in shown["depthbal"] for name in COMMANDS)
    for name, text in shown.items():
        assert 0 < len(text.splitlines()) <= 60, name
        assert "usage: depthbal" in text
    assert max(map(len, shown["train"].splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_tool_too(name, capsys):
    assert tool(f"{name}.py", "--help") == 0
    assert f"usage: depthbal {name}" in capsys.readouterr().out


def test_an_unknown_command_is_answered_with_those_there_are(capsys):
    assert main(None, ["trian"]) == 2
    assert main(None, []) == 0
    captured = capsys.readouterr()
    for text in (captured.err, captured.out):
        assert all(name in text for name in COMMANDS)


def test_every_setting_of_a_config_is_listed_on_request(capsys):
    assert command("train", "--config", "rooms/bni", "--help", "all") == 0
    shown = capsys.readouterr().out
    for setting in ("--trainer.max_epochs", "noise_lr", "n_train", "weights_from"):
        assert setting in shown


MISSING = ["evaluate nowhere", "predict nowhere room.png", "report nowhere"]
MISSING += ["train --resume nowhere", "train --config nowhere", "convert nowhere --out converted"]
MISSING += ["prepare nowhere --out packed.h5", "export nowhere --out file.onnx"]


@pytest.mark.parametrize("line", MISSING)
def test_something_missing_is_one_message_without_traceback(line, capsys):
    assert command(*line.split()) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message
    assert "Traceback" not in message


def test_files_of_the_benchmark_are_trained_moved_and_evaluated(tmp_path, monkeypatch, capfd):
    data = write_nyud2(tmp_path / "here", scenes=1, per_scene=21)  # batches of 4 leave one of 17
    config = nyud2_config(tmp_path, root="nowhere", val_fraction=0.2)
    run = tmp_path / "run"
    arguments = ["--config", config, "--out", run, "--trainer.max_epochs", "1"]
    here = os.path.relpath(data.parent)
    assert command("train", *arguments, "--data.root", here) == 0
    printed = "".join(capfd.readouterr())
    for said_once in ("contiguous block", "leaves out 1 of 17"):
        assert printed.count(said_once) == 1
    assert "GPU available" not in printed  # the engine's small talk stays away
    assert not logging.getLogger("depthbal").handlers
    monkeypatch.chdir(tmp_path)  # trained from one folder with a relative root, used from another
    assert command("evaluate", run, "--device", "cpu") == 0
    assert command("train", "--resume", run, "--trainer.max_epochs", "2") == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert command("evaluate", run, "--device", "cpu") == 2
    assert command("evaluate", run, "--device", "cpu", "--data.root", tmp_path / "there") == 0
    assert (run / "checkpoints" / "best.ckpt").exists()


def test_an_image_that_breaks_during_training_is_named(tmp_path, capsys):
    data = write_nyud2(tmp_path / "root", scenes=12)
    torn = data / "nyu2_train" / "scene03_out" / "2.jpg"
    settings = {"root": str(tmp_path / "root"), "val_fraction": 0.0, "num_workers": 1}
    config = nyud2_config(tmp_path, **settings)
    torn.write_bytes(torn.read_bytes()[:100])
    assert command("train", "--config", config, "--out", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert "scene03_out/2.jpg" in message
    assert "Traceback" not in message


def test_folders_of_ones_own_replace_the_data_of_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(20):
        write_file(Path("mine", "rgb", f"{index}.png"), noise_image(24, 32, index))
        depth = np.full((24, 32), 1000 + 200 * index, dtype=np.uint16)
        write_file(Path("mine", "depth", f"{index}.png"), depth)
    options = ["--data", "FolderDataModule", "--data.root", "mine", "--data.scale", "0.001"]
    options += ["--data.short_side=24"]
    line = ["--config", "rooms/mse", *options, "--trainer.max_epochs=1"]
    assert command("train", *line, "--trainer.accelerator=cpu", "--out", "run") == 0
    metrics = json.loads(Path("run", "metrics.json").read_text())
    assert metrics["protocol"]["data"]["class"] == "FolderDataModule"
    assert metrics["protocol"]["data"]["picture_share"] == 1


def test_prediction_balances_a_plain_run_afterwards_and_says_with_which_sigma(capsys):
    plain = Path(shutil.copytree(run_of("mse"), "plain"))
    pretend_errors(plain, *[0.8] * 9)
    image = noise_image(50, 70)
    write_file(Path("plain.png"), image)
    arguments = [plain, "plain.png", "--device", "cpu", "--out", "balanced"]
    assert command("predict", *arguments, "--posthoc", "auto") == 0
    sigma, source = posthoc_sigma(open_run(plain), "last", "auto")
    assert f"sigma {sigma:g} m ({source})" in capsys.readouterr().out
    written = cv2.imread("balanced/plain_depth.png", cv2.IMREAD_UNCHANGED) / 1000
    expected = load_predictor(plain, posthoc_sigma=sigma).predict(image)
    assert np.abs(written - expected).max() <= 0.0005 + 1e-5
    assert np.abs(written - load_predictor(plain).predict(image)).max() > 0.01
    # a checkpoint alone has no validation error
    file = plain / "checkpoints" / "last.ckpt"
    assert command("predict", file, *arguments[1:-1], "file", "--posthoc", "auto") == 2
    assert "give a sigma" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "predict"])
@pytest.mark.parametrize("reason", ["a directory", "Permission denied"])
def test_a_folder_that_cannot_be_made_is_one_line(name, reason, monkeypatch, capsys):
    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    Path("file").touch()
    write_file(Path("one.png"), noise_image(24, 32))
    arguments = [run_of("gai"), "one.png"] if name == "predict" else TINY_ROOMS
    if reason == "Permission denied":
        monkeypatch.setattr(Path, "mkdir", forbidden)
    out = "file/run" if reason == "a directory" else "shut/run"
    capsys.readouterr()  # of the training
    assert command(name, *arguments, "--out", out) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert reason in message
    assert out.split("/")[0] in message
    assert "--out" in message
