"""What a training says while it runs, in a terminal and elsewhere, and what could be faster."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from depthbal.training import optimisation
from depthbal.training.optimisation import faster
from tests.training.helpers import REPOSITORY, command, tiny_config


def in_a_terminal(line: list[str]) -> str:
    """Return what a command writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(
        line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # how a pseudo-terminal says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_a_terminal_shows_a_bar_of_all_epochs_with_the_time_left(tmp_path):
    config = tiny_config(tmp_path / "c.yaml")
    line = ["-m", "depthbal", "train", "--config", config, "--out", tmp_path / "run"]
    shown = in_a_terminal([sys.executable, *map(str, line)])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"Training \S+ +[0-6]/6 +(\d:\d\d:\d\d|-:--:--) left", text)  # 3 steps, twice
    assert re.search(r"Evaluating \S+ +\d/1", text)
    assert re.search(r"[\r\n]epoch 2/2, loss \d", text)


@pytest.mark.parametrize(("length", "of"), [({}, "/2"), ({"max_epochs": -1, "max_steps": 6}, "")])
def test_elsewhere_epochs_are_lines_and_the_device_is_said(tmp_path, capsys, length, of):
    config = tiny_config(tmp_path / "c.yaml", trainer=length)
    assert command("train", "--config", config, "--out", tmp_path / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    epochs = [line.partition(",")[0] for line in lines if line.startswith("epoch")]
    assert epochs == [f"epoch 1{of}", f"epoch 2{of}"]
    assert any(re.fullmatch(r"Trains on cpu in (bf16-mixed|32-true)", line) for line in lines)
    assert not any(line.startswith(("Training ", "Evaluating ")) and "━" in line for line in lines)


@pytest.mark.parametrize(
    ("gpu", "driver", "native", "hint"),
    [
        (True, True, False, "NVIDIA H200: --trainer.accelerator gpu"),
        (False, True, False, "cannot use"),
        (False, False, True, "bf16-mixed"),
        (False, False, False, None),
    ],
)
def test_a_training_says_what_this_machine_could_do_faster(monkeypatch, gpu, driver, native, hint):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(Path, "exists", lambda path: driver and "nvidia" in str(path))
    best = "bf16-mixed" if native else "32-true"
    monkeypatch.setattr(optimisation, "default_precision", lambda _: best)
    cpu, found = torch.device("cpu"), faster(torch.device("cpu"), "32-true")
    assert [hint in one for one in found] == [True] * bool(hint)
    assert faster(torch.device("cuda", 0), best) == []
    assert not native or faster(cpu, best) == []
