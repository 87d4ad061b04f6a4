"""README and documentation as the tests read them: blocks of code, and lines that call depthbal."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:\S*python3? (?:-m depthbal|tools/(\w+)\.py)|depthbal)\s+(.*)$")


class Block(NamedTuple):
    """A block of code: its language, its title (a file's name, or why it is not run), its text."""

    language: str
    title: str
    code: str

    @property
    def file(self) -> str | None:
        """The file that the block is to be, if it is one."""
        found = re.match(r"[\w./]+\.(py|yaml)\b", self.title)
        return found and found.group()


def blocks(page: str, language: str | None = None) -> list[Block]:
    """Return the blocks of a page."""
    found = (Block(*groups) for groups in BLOCK.findall(PAGES[page]))
    return [block for block in found if language in (None, block.language)]


def write_files(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go into a folder with the files that a page has its reader write."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.code, encoding="utf-8")


def command_lines(page: str) -> list[list[str]]:
    """Return every call of depthbal in a page's shell blocks: the command's name, its arguments."""
    text = "\n".join(block.code.replace("\\\n", " ") for block in blocks(page, "bash"))
    found = (LINE.match(line.strip().split("  #")[0].strip()) for line in text.splitlines())
    lines = [[match.group(1) or "", *shlex.split(match.group(2))] for match in found if match]
    lines = [line if line[0] else line[1:] for line in lines]
    return [line for line in lines if not line[0].startswith(("bench", "show", "-"))]
