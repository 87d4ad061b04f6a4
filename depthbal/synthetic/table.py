"""The benchmark's results as files and on the terminal, beside the paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.io import replacing
from depthbal.io import write_json
from depthbal.synthetic.benchmark import Cell, summary
from depthbal.synthetic.methods import METHODS
from depthbal.synthetic.published import TABLE_1


def table_content(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return {column: {method: {median, q1, q3, values}}} of the cells that have errors.

    Example:
        >>> table_content([Cell("mvn_low", "gai", (0.5, 0.25)), Cell("mvn_low", "bni")])
        {'mvn_low': {'gai': {'median': 0.375, 'q1': 0.3125, 'q3': 0.4375, 'values': [0.5, 0.25]}}}
    """
    content: dict[str, dict[str, Any]] = {}
    for cell in cells:
        of_column = content.setdefault(cell.column, {})
        if cell.errors:
            of_column[cell.method] = summary(cell.errors)
    return content


def details(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return {column: {method: {iterations, noise_sigma, notes}}}; noise_sigma where learned."""
    content: dict[str, dict[str, Any]] = {}
    for cell in cells:
        entry: dict[str, Any] = {"iterations": cell.iterations, "notes": list(cell.notes)}
        if cell.noise_sigma is not None:
            entry["noise_sigma"] = summary(cell.noise_sigma)
        content.setdefault(cell.column, {})[cell.method] = entry
    return content


def write_table(cells: Sequence[Cell], about: dict[str, Any], folder: Path) -> None:
    """Write table.json, details.json and table.md.

    Args:
        cells: The results.
        about: Seeds, solver, settings, machine; for details.json.
        folder: Where to.
    """
    write_json(folder / "table.json", table_content(cells))
    write_json(folder / "details.json", {**about, "columns": details(cells)})
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(markdown(cells), encoding="utf-8")


def markdown(cells: Sequence[Cell]) -> str:
    """Return the table as Markdown: medians, quartiles in brackets, the paper's draw below."""
    columns, rows = _rows(cells)
    lines = ["| test MSE | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(entries)} |" for title, entries in rows]
    notes = [f"{c.column}, {METHODS[c.method].title}: {note}" for c in cells for note in c.notes]
    return "\n".join([*lines, "", LEGEND, *notes]) + "\n"


LEGEND = (
    "Median over seeds [quartiles]. *: the noise scale is given, not learned. Paper: Ren et al., "
    "CVPR 2022, Table 1, a single draw."
)


def print_table(console: Console, cells: Sequence[Cell]) -> None:
    """Print the medians beside the paper's numbers, a block per distribution."""
    content = table_content(cells)
    kinds: dict[str, list[str]] = {}
    for column in content:
        kinds.setdefault(column.rpartition("_")[0], []).append(column)
    for columns in kinds.values():
        table = Table(title="Test MSE: median over seeds (the paper's draw)", box=SIMPLE_HEAD)
        table.add_column("method")
        for column in columns:
            table.add_column(column, justify="right")
        for method in dict.fromkeys(cell.method for cell in cells):
            entries = []
            for column in columns:
                found = content[column].get(method)
                paper = _paper(column, method)
                entry = short(found["median"]) if found else "-"
                entries.append(f"{entry} ({paper})" if paper else entry)
            table.add_row(METHODS[method].title, *entries)
        console.print(table)
    for cell in cells:
        for note in cell.notes:
            console.print(f"{cell.column}, {METHODS[cell.method].title}: {note}")


def short(value: float) -> str:
    """Return a number with three digits that count, and at most four after the point.

    Example:
        >>> short(17.886), short(0.0176), short(0.00141), short(123.4)
        ('17.9', '.0176', '.0014', '123')
    """
    digits = next((d for d, size in ((4, 0.1), (3, 1), (2, 10), (1, 100)) if abs(value) < size), 0)
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def _paper(column: str, method: str) -> str:
    published = TABLE_1.get(column, {}).get(method)
    return "" if published is None else short(published)


def _rows(cells: Sequence[Cell]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the columns' names, and a title and one entry per column for every row."""
    content = table_content(cells)
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        title = METHODS[method].title
        entries = []
        for column in content:
            found = content[column].get(method)
            span = f" [{short(found['q1'])}, {short(found['q3'])}]" if found else ""
            entries.append(short(found["median"]) + span if found else "-")
        rows.append((title, entries))
        paper = [_paper(column, method) for column in content]
        if any(paper):
            rows.append((f"{title}, paper", paper))
    return list(content), rows
