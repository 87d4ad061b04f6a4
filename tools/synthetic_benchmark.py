#!/usr/bin/env python
"""Table 1 of the paper: ``python tools/synthetic_benchmark.py --seeds 20 --out runs/synthetic``.

The exact solver finds every method's optimum in float64; ``--solver sgd`` trains by the
supplement's recipe, which takes hours. Further columns and methods: ``--help``.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from measuring import machine

from depthbal.commands import run


def main(arguments: Sequence[str]) -> None:
    """Solve the synthetic benchmark and write its table and figures."""
    from rich.console import Console

    from depthbal.synthetic import COLUMNS, TABLE_METHODS, Settings, run_benchmark
    from depthbal.synthetic.table import print_table, write_table

    options = _parser(COLUMNS, TABLE_METHODS).parse_args(arguments)
    settings = Settings(options.batch_size, options.n_components, options.noise_sigma)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    torch.set_num_threads(1)  # the arrays are small
    start = time.perf_counter()
    running = run_benchmark(
        options.columns,
        options.methods,
        seeds,
        options.solver,
        settings,
        options.epochs,
        options.workers,
    )
    console = Console()
    cells = []
    for cell in running:
        cells.append(cell)
        if options.verbose:
            console.print(f"{cell.column} {cell.method}: {time.perf_counter() - start:.1f} s")
    spent = {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": _processor_time()}
    about = {"seeds": seeds, "solver": options.solver, "settings": vars(settings), **spent}
    write_table(cells, {**about, "epochs": options.epochs, "machine": machine()}, options.out)
    print_table(console, cells)
    console.print(f"{spent['seconds']} s, {spent['cpu_seconds']} s of processor time.")
    if not options.no_figures:
        from depthbal.synthetic.figures import write_figures

        write_figures(cells, seeds, options.out)
    console.print(f"Written: {options.out}")


def _processor_time() -> float:
    """Return the seconds that this process and its workers have computed."""
    own, workers = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(sum(used.ru_utime + used.ru_stime for used in (own, workers)), 1)


def _parser(columns: list[str], methods: list[str]) -> argparse.ArgumentParser:
    from depthbal.synthetic.columns import KINDS
    from depthbal.synthetic.methods import BATCH_SIZE, METHODS

    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/synthetic"))
    parser.add_argument("--solver", default="exact", help="exact (default) or sgd")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=columns,
        metavar="KIND_LEVEL",
        help=f"kinds {', '.join(KINDS)}; levels high, moderate, low, or a number",
    )
    parser.add_argument(
        "--methods", nargs="+", default=methods, metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="labels BMC sees")
    parser.add_argument("--n-components", type=int, help="of GAI's mixture; default: published")
    parser.add_argument("--noise-sigma", type=float, default=1.0, help="where it is given (*)")
    parser.add_argument("--epochs", type=int, help="of --solver sgd; default: the supplement's")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--no-figures", action="store_true", help="the table only")
    parser.add_argument("--verbose", action="store_true", help="report every cell")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
