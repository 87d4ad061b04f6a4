"""The README's commands and code are true."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.test_tools import TINY_ROOMS, tool

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def marked(name: str) -> str:
    found = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no command marked {name}"
    return found.group(1)


def tool_commands() -> list[list[str]]:
    """Every `python tools/...` line outside the two install commands."""
    text = "\n".join(block.replace("\\\n", " ") for block in blocks("bash"))
    lines = [line.split("  #")[0] for line in text.splitlines() if line.startswith("python tools/")]
    return [shlex.split(line) for line in lines]


def test_the_two_commands_are_complete_on_a_machine_with_python_only():
    for name in ("run", "test"):
        steps = [step.strip() for step in marked(name).split("&&")]
        assert steps[0] == "python3 -m venv .venv"
        assert steps[1].startswith(".venv/bin/pip install -e ")
        assert steps[2].startswith(".venv/bin/python ")
    assert "[test]" in marked("test")
    assert marked("test").endswith("-m pytest -n auto --dist loadfile")
    assert shlex.split(marked("run"))[-1] == "tools/train.py"


def test_ci_runs_the_test_command_literally(tmp_path):
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extraction = next(line for line in script.splitlines() if line.startswith("command=$("))
    printed = subprocess.run(
        ["bash", "-c", f'{extraction}\necho "$command"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == marked("test")


def test_every_tool_and_config_the_readme_names_exists():
    for path in set(re.findall(r"(?:tools|configs)/[\w/{},]+\.(?:py|yaml)", README)):
        options = re.search(r"\{(.*?)\}", path)
        names = options.group(1).split(",") if options else [""]
        for name in names:
            file = ROOT / re.sub(r"\{.*?\}", name, path)
            assert file.is_file(), f"{file} is in the README and not in the repository"


def test_the_commands_on_the_rooms_run(tmp_path, monkeypatch):
    """Train, resume with more epochs, evaluate, predict: the README's lines on tiny rooms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)
    assert tool("train.py", *TINY_ROOMS) == 0
    resumed = [line for line in tool_commands() if "--resume" in line]
    assert resumed
    for line in resumed:
        line[line.index("--trainer.max_epochs") + 1] = "2"
        assert tool(Path(line[1]).name, *line[2:]) == 0
    other = [line for line in tool_commands() if "--model.criterion" in line]
    assert other
    for line in other:
        assert tool(Path(line[1]).name, *line[2:], *TINY_ROOMS) == 0
    assert tool("evaluate.py", "runs/rooms-gai", "--checkpoint", "best") == 0


def help_of(line: list[str]) -> tuple[str, ...]:
    """Return the tool of a line of the README and what makes it list that line's options."""
    config = line[line.index("--config") :][:2] if "--config" in line else []
    return (Path(line[1]).name, *config, "--help")


def test_every_option_of_the_other_commands_parses(capsys, monkeypatch):
    """Lines that need data the reader has: their options are known to the tool."""
    monkeypatch.chdir(ROOT)
    shown: dict[tuple[str, ...], str] = {}
    for line in tool_commands():
        command = help_of(line)
        if command not in shown:
            assert tool(*command) == 0, command
            shown[command] = capsys.readouterr().out
        for option in (part for part in line[2:] if part.startswith("--")):
            leaf = option.split(".")[-1].removeprefix("--")
            known = leaf in shown[command]
            assert known or option.startswith(("--data.", "--model.criterion")), (option, command)


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
