"""The README's two commands are true, and it stays short."""

import re
import subprocess

from tests.documents import PAGES, ROOT, command_lines
from tests.test_tools import TINY_ROOMS, tool
from tests.training.helpers import command

README = PAGES["README.md"]


def marked(name: str) -> str:
    found = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no command marked {name}"
    return found.group(1)


def test_it_is_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 150


def test_its_links_lead_to_what_is_there():
    for link in re.findall(r"\]\((?!https?:|#)(.*?)(?:#.*?)?\)", README):
        assert (ROOT / link).exists(), link


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


def test_the_commands_on_the_rooms_run(tmp_path, monkeypatch, capsys):
    """Train, resume with more epochs, another loss, evaluate: lines of the pages on tiny rooms."""
    monkeypatch.chdir(tmp_path)
    assert tool("train.py", *TINY_ROOMS) == 0
    printed = capsys.readouterr().out
    for said in ("Balanced mask", "All pixels", "read-out mean", "few", "took", "Report: runs/"):
        assert said in printed
    assert printed.endswith("Run folder: runs/rooms-gai\n")
    (resumed,) = (line for line in command_lines("docs/howto/resume.md") if "30" in line)
    resumed[resumed.index("--trainer.max_epochs") + 1] = "2"
    assert command(*resumed) == 0
    lines = command_lines("docs/howto/settings.md")
    (other,) = (line for line in lines if line[0] == "train" and "--model.criterion" in line)
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)
    assert command(*other, *TINY_ROOMS) == 0
    assert command("evaluate", "runs/rooms-gai", "--checkpoint", "best") == 0
