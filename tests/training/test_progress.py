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

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


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


@pytest.mark.parametrize("native", [True, False])
def test_a_training_in_float32_says_that_bfloat16_is_native(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    found = {"avx512_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert [("bf16-mixed" in hint) for hint in faster(CPU, "32-true")] == [True] * native
    assert faster(CPU, "bf16-mixed") == []


def test_a_training_on_the_cpu_says_that_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(optimisation, "default_precision", lambda _: "32-true")
    (hint,) = faster(CPU, "32-true")
    assert "NVIDIA H200: --trainer.accelerator gpu" in hint
    assert faster(GPU, "32-true") == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for there in (True, False):
        monkeypatch.setattr(
            Path, "exists", lambda path, there=there: there and "nvidia" in str(path)
        )
        assert ["cannot use" in hint for hint in faster(CPU, "32-true")] == [True] * there
