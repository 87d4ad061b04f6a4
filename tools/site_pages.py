"""The pages of the documentation that are made from the code: a hook of mkdocs, see mkdocs.yml."""

import contextlib
import html
import inspect
import io
import json
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import griffe
from jsonargparse import ArgumentParser
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from depthbal.commands import COMMANDS
from depthbal.commands import main as run_command

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("", "losses", "priors", "evaluation", "data", "models", "training")
CONFIGURABLE = {  # sections of the settings: what their objects may be
    "The task (--model)": ["training.DepthTask"],
    "The loss (--model.criterion)": [
        *("losses.GAILoss", "losses.BNILoss", "losses.BMCLoss", "losses.BinsLoss"),
        *("losses.MSELoss", "losses.L1Loss", "losses.HuberLoss", "losses.SILogLoss"),
        *("losses.FocalRLoss", "losses.ReweightedLoss", "losses.GradientLoss"),
        "losses.CombinedLoss",
    ],
    "The network (--model.model)": ["models.SmpDepth", "models.HFDepth", "models.ResNetMFF"],
    "The data (--data)": [
        "data.FolderDataModule",
        "data.NYUD2DataModule",
        "data.RoomsDataModule",
        "data.StreetsDataModule",
    ],
    "The rest": ["training.WarmupCosine", "training.FeatureSmoothing"],
}


class Examples(griffe.Extension):  # type: ignore[misc]
    """Tells griffe that ``Example:`` begins what it calls ``Examples:``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section of one docstring."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures of the benchmarks."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    for picture in (ROOT / "tools" / "results").glob("*.png"):
        path = f"results/{picture.name}"
        files.append(File.generated(config, path, abs_src_path=str(picture)))
    return files


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Give formulas of notebooks as MathML, which needs no script, and lead links to pages."""

    def formula(found: re.Match[str]) -> str:
        return (
            f'<div class="formula">{convert(html.unescape(found.group(1)), display="block")}</div>'
        )

    if not page.file.src_uri.endswith(".ipynb"):
        return content
    content = re.sub(r"\$\$(.+?)\$\$", formula, content, flags=re.DOTALL)
    return re.sub(r'href="([^":]+)\.(?:ipynb|md)(#[^"]*)?"', r'href="\1.html\2"', content)


@cache
def pages() -> dict[str, str]:
    """Return the generated pages by path."""
    out = {"commands.md": commands(), "settings.md": settings(), "benchmarks.md": benchmarks()}
    for room in ROOMS:
        module = f"depthbal.{room}".rstrip(".")
        out[f"reference/{module}.md"] = reference(module)
    return out


def reference(module: str) -> str:
    """Return a page with the docstrings of all that a module exports."""
    room = import_module(module)
    names = [name for name in room.__all__ if callable(getattr(room, name))]
    parts = [f"# {module}", inspect.getdoc(room) or ""]
    return "\n\n".join([*parts, *(f"::: {module}.{name}" for name in names)])


def commands() -> str:
    """Return the help of every command."""
    parts = ["# Commands", "What `depthbal NAME --help` prints."]
    for name, what in COMMANDS.items():
        text = io.StringIO()
        with mock.patch.dict(os.environ, COLUMNS="80"), contextlib.redirect_stdout(text):
            run_command(name, ["--help"])
        parts += [f"## {name}", what[0].upper() + what[1:] + ".", _fenced(text.getvalue())]
    return "\n\n".join(parts)


def settings() -> str:
    """Return the settings of everything that a config can name."""
    parts = [
        "# Settings",
        "What a config can set: the arguments of the objects that it names, as "
        "`--model.criterion.noise learned` on the command line or nested keys in a YAML file. "
        "`--trainer` takes Lightning's [own settings]"
        "(https://lightning.ai/docs/pytorch/stable/common/trainer.html). "
        "`depthbal train --config NAME --print_config` prints all that a config sets.",
    ]
    for section, names in CONFIGURABLE.items():
        parts.append(f"## {section}")
        for name in names:
            room, _, cls = name.rpartition(".")
            parts += [f"### {cls}", _table(getattr(import_module(f"depthbal.{room}"), cls))]
    configs = ROOT / "depthbal" / "configs"
    parts += ["## The shipped configs", "`--config NAME`, several are laid over each other."]
    for path in sorted(configs.rglob("*.yaml")):
        name = path.relative_to(configs).with_suffix("").as_posix()
        parts += [f"### {name}", _fenced(path.read_text(encoding="utf-8"), "yaml")]
    return "\n\n".join(parts)


def _table(cls: type) -> str:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    lines = ["| setting, default | |", "|---|---|"]
    for action in parser._actions:
        if action.dest in ("help", "config", "print_config") or action.dest.endswith(".help"):
            continue
        default = action.default
        shown = json.dumps(default, default=str) if not isinstance(default, str) else default
        help_ = " ".join((action.help or "").split()).replace("|", "\\|").replace("``", "`")
        lines.append(f"| `{action.dest}`<br>`{shown}` | {help_} |")
    return "\n".join(lines)


def benchmarks() -> str:
    """Return every table of tools/results."""
    parts = [
        "# Every table",
        "All files of `tools/results`, as they are in the repository. Each names the command and "
        "the machine that it comes from. Rows of GPUs are open where none was available.",
    ]
    folder = ROOT / "tools" / "results"
    for path in sorted([*folder.glob("*.md"), *folder.glob("*.json")]):
        if path.suffix == ".md":
            text = re.sub(r"^#", "##", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            parts.append(text.strip())
            if path.with_suffix(".png").is_file():
                parts.append(f"![{path.stem}](results/{path.stem}.png)")
        elif not path.with_suffix(".md").is_file():
            parts += [f"## {path.name}", *_tables(json.loads(path.read_text(encoding="utf-8")))]
    return "\n\n".join(parts)


def _tables(content: Mapping[str, Any], title: str = "") -> Iterator[str]:
    """Yield the tables of a JSON file: rows of numbers, or of a study's medians over seeds."""
    rows = {name: _row(value) for name, value in content.items() if isinstance(value, Mapping)}
    plain = {name: row for name, row in rows.items() if row}
    columns = list(dict.fromkeys(column for row in plain.values() for column in row))
    if columns:
        heads = [column.removesuffix(".rmse").rpartition(".")[2] for column in columns]
        yield f"**{title}**" if title else "Medians over the seeds; in brackets every seed."
        lines = [f"| | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
        for name, row in plain.items():
            lines.append(f"| {name} | {' | '.join(row.get(column, '') for column in columns)} |")
        yield "\n".join(lines)
    for name, value in content.items():
        if isinstance(value, Mapping) and not rows[name]:
            yield from _tables(value, name)


def _row(value: Mapping[str, Any]) -> dict[str, str]:
    """Return what there is to show of a method; nothing where its values are rows themselves."""
    row = {}
    for key, cell in value.items():
        if isinstance(cell, int | float):
            row[key] = f"{cell:.3f}"
        elif isinstance(cell, Mapping) and isinstance(cell.get("values"), Sequence):
            numbers = [number for number in cell["values"] if number is not None]
            if numbers:
                each = ", ".join(f"{number:.3f}" for number in numbers)
                row[key] = f"{statistics.median(numbers):.3f} ({each})"
    return row


def _fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip()}\n```"
