"""The README's commands and code are true."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from depthbal.commands import COMMANDS
from depthbal.training.settings import find_config
from tests.test_tools import TINY_ROOMS, tool
from tests.training.helpers import command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINE = re.compile(r"^(?:\S*python3? (?:-m depthbal|tools/(\w+)\.py)|depthbal)\s+(.*)$")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def marked(name: str) -> str:
    found = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no command marked {name}"
    return found.group(1)


def command_lines() -> list[list[str]]:
    """Every command of depthbal in the README's shell blocks: its name, then its arguments."""
    text = "\n".join(block.replace("\\\n", " ") for block in blocks("bash"))
    found = (LINE.match(line.split("  #")[0].strip()) for line in text.splitlines())
    lines = [[match.group(1) or "", *shlex.split(match.group(2))] for match in found if match]
    return [line if line[0] else line[1:] for line in lines if not line[0].startswith("bench")]


LINES = [line for line in command_lines() if line[0] in COMMANDS]


def test_the_two_commands_are_complete_on_a_machine_with_python_only():
    for name in ("run", "test"):
        steps = [step.strip() for step in marked(name).split("&&")]
        assert steps[0] == "python3 -m venv .venv"
        assert steps[1].startswith(".venv/bin/pip install -e ")
        assert steps[2].startswith(".venv/bin/")
    assert "[test]" in marked("test")
    assert marked("test").endswith("-m pytest -n auto --dist loadfile")
    assert marked("run").endswith((".venv/bin/depthbal train", ".venv/bin/python tools/train.py"))


def test_ci_runs_the_test_command_literally():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extraction = next(line for line in script.splitlines() if line.startswith("command=$("))
    line = ["bash", "-c", f'{extraction}\necho "$command"']
    printed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == marked("test")


def test_every_tool_and_command_the_readme_names_exists():
    for path in set(re.findall(r"tools/[a-z_/]+\.\w+", README)):
        assert (ROOT / path).is_file(), f"{path} is in the README and not in the repository"
    assert {line[0] for line in command_lines()} <= {*COMMANDS, "synthetic_benchmark"}
    # every command has an example; that of demo is in docs/demo.md
    assert {line[0] for line in LINES} | {"demo"} == set(COMMANDS)


@pytest.mark.parametrize("line", [line for line in LINES if line[0] == "train"], ids=" ".join)
def test_every_line_that_trains_parses(line, capsys):
    """The settings are known, the configs are there; the data are the reader's."""
    if "--resume" in line:
        assert all(o.startswith(("--resume", "--trainer.", "--data.")) for o in options(line))
        return
    arguments = [part.replace("$loss", "gai") for part in line[1:]]
    assert command("train", *arguments, "--print_config") == 0, capsys.readouterr().err


def options(line: list[str]) -> list[str]:
    return [part.partition("=")[0] for part in line if part.startswith("--")]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_every_option_of_the_other_commands_is_known(name, capsys):
    assert command(name, "--help") == 0
    shown = capsys.readouterr().out
    for line in (line for line in LINES if line[0] == name):
        unknown = [option for option in options(line) if option not in shown]
        assert all(option.startswith(("--data.", "--trainer.")) for option in unknown), line
        for part in line:
            if re.fullmatch(r"(rooms|nyud2|nyuv2_labelled|age|hmr)(/\w+)+", part):
                assert find_config(part).is_file()


def test_the_commands_on_the_rooms_run(tmp_path, monkeypatch, capsys):
    """Train, resume with more epochs, another loss, evaluate: the README's lines on tiny rooms."""
    monkeypatch.chdir(tmp_path)
    assert tool("train.py", *TINY_ROOMS) == 0
    printed = capsys.readouterr().out
    for said in ("Balanced mask", "All pixels", "read-out mean", "few", "took", "Report: runs/"):
        assert said in printed
    assert printed.endswith("Run folder: runs/rooms-gai\n")
    resumed = [line for line in LINES if "--resume" in line]
    assert resumed
    for line in resumed:
        line[line.index("--trainer.max_epochs") + 1] = "2"
        assert command(*line) == 0
    other = [line for line in LINES if "--model.criterion" in line and "--data.root" not in line]
    assert other
    for line in other:
        monkeypatch.delenv("DEPTHBAL_RUN", raising=False)
        assert command(*line, *TINY_ROOMS) == 0
    assert command("evaluate", "runs/rooms-gai", "--checkpoint", "best") == 0


@pytest.mark.filterwarnings("ignore:BMCLoss met a batch")
def test_the_code_for_other_trainers_runs():
    code = next(block for block in blocks("python") if "GAILoss" in block)
    torch.manual_seed(0)
    names = {
        "torch": torch,
        "training_depths": [0.7 + 9.3 * torch.rand(50, 40) ** 2 for _ in range(3)],
        "network": nn.Conv2d(3, 1, 1),
        "image": torch.rand(2, 3, 8, 8),
        "preds": torch.rand(2, 1, 8, 8, requires_grad=True),
        "target": 1 + torch.rand(2, 1, 8, 8),
        "mask": torch.rand(2, 1, 8, 8) < 0.5,
    }
    exec(code, names)
    assert names["value"].requires_grad
    assert names["metres"].shape == (2, 1, 8, 8)
    assert 0.7 < names["metres"].min() < names["metres"].max() < 10.0


def test_the_code_for_prediction_names_the_default_run():
    code = next(block for block in blocks("python") if "load_predictor" in block)
    assert 'load_predictor("runs/rooms-gai")' in code
