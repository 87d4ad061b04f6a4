#!/usr/bin/env python
"""Table 1 of the paper: ``python tools/synthetic_benchmark.py --seeds 20 --out runs/synthetic``.

Every method is solved to its optimum in float64. Further columns and methods: ``--help``.
"""

import argparse
import itertools
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from measuring import machine
from rich.console import Console
from rich.markdown import Markdown

from depthbal.commands import run
from depthbal.io import write_json
from depthbal.synthetic import (
    COLUMNS,
    METHODS,
    TABLE_1,
    TABLE_METHODS,
    Cell,
    Settings,
    run_benchmark,
    summary,
)

LEGEND = """Median over seeds [quartiles]. *: the noise scale is given, not learned.
Paper: Ren et al., CVPR 2022, Table 1, a single draw."""

# {column: {method: entry}}
Content = dict[str, dict[str, dict[str, Any]]]


def main(arguments: Sequence[str]) -> None:
    """Solve the synthetic benchmark and write its table and figures."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--seeds", type=int, default=20, help="how many")
    add("--first-seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/synthetic"))
    kinds = "KIND_LEVEL: normal, exponential, mvn; high, moderate, low, or a number"
    add("--columns", nargs="+", default=COLUMNS, help=kinds)
    add("--methods", nargs="+", default=list(TABLE_METHODS), help=", ".join(METHODS))
    add("--batch-size", type=int, default=256, help="labels BMC sees")
    add("--n-components", type=int, help="of GAI's mixture; default: published")
    add("--noise-sigma", type=float, default=1.0, help="where it is given (*)")
    add("--workers", type=int, default=min(2, os.cpu_count() or 1))
    add("--no-figures", action="store_true", help="the table only")
    options = parser.parse_args(arguments)
    settings = Settings(options.batch_size, options.n_components, options.noise_sigma)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    torch.set_num_threads(1)  # the arrays are small
    start = time.perf_counter()
    cells = list(run_benchmark(options.columns, options.methods, seeds, settings, options.workers))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    spent = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(sum(own.ru_utime + own.ru_stime for own in used), 1),
    }
    about = {"seeds": seeds, "settings": vars(settings), **spent, "machine": machine()}
    write_table(cells, about, options.out)
    print_table(cells)
    print(f"{spent['seconds']} s, {spent['cpu_seconds']} s of processor time.")
    if not options.no_figures:
        from synthetic_figures import write_figures

        write_figures(cells, seeds, options.out)
    print(f"Written: {options.out}")


def write_table(cells: Sequence[Cell], about: dict[str, Any], folder: Path) -> None:
    """Write table.json, table.md, and details.json with seeds, settings and machine."""
    details: Content = {cell.column: {} for cell in cells}
    for cell in cells:
        sigma = {"noise_sigma": summary(cell.noise_sigma)} if cell.noise_sigma else {}
        entry = {"iterations": cell.iterations, "notes": cell.notes, **sigma}
        details[cell.column][cell.method] = entry
    table = [*_lines(cells, quartiles=True), "", LEGEND, *_notes(cells)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "table.json", _content(cells))
    write_json(folder / "details.json", {**about, "columns": details})
    (folder / "table.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def print_table(cells: Sequence[Cell]) -> None:
    """Print the medians above the paper's numbers, a block per distribution."""
    console = Console()
    for _, block in itertools.groupby(cells, lambda cell: cell.column.rpartition("_")[0]):
        console.print(Markdown("\n".join(_lines(list(block)))))
    console.print(*_notes(cells), sep="\n")


def _lines(cells: Sequence[Cell], quartiles: bool = False) -> list[str]:
    """Return the table in Markdown: medians, quartiles in brackets, the paper's draw below."""
    content = _content(cells)

    def entry(found: dict[str, Any]) -> str:
        ends = f" [{short(found['q1'])}, {short(found['q3'])}]" if quartiles else ""
        return short(found["median"]) + ends

    rows = [["test MSE", *content], ["---"] * (len(content) + 1)]
    for method in dict.fromkeys(cell.method for cell in cells):
        title, published = METHODS[method].title, TABLE_1.get(method, {})
        medians = (entry(its[method]) if method in its else "-" for its in content.values())
        rows.append([title, *medians])
        if published.keys() & content:
            papers = (short(published[name]) if name in published else "" for name in content)
            rows.append([f"{title}, paper", *papers])
    return [f"| {' | '.join(row)} |" for row in rows]


def _content(cells: Sequence[Cell]) -> Content:
    content: Content = {cell.column: {} for cell in cells}
    for cell in cells:
        if cell.errors:
            content[cell.column][cell.method] = summary(cell.errors)
    return content


def _notes(cells: Sequence[Cell]) -> list[str]:
    return [f"{c.column}, {METHODS[c.method].title}: {note}" for c in cells for note in c.notes]


def short(value: float) -> str:
    """Return a number with three digits that count, and at most four after the point."""
    return f"{round(value, 4):.3g}"


if __name__ == "__main__":
    raise SystemExit(run(main))
