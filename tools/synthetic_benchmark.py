#!/usr/bin/env python
"""Table 1 of the paper: ``python tools/synthetic_benchmark.py --seeds 20 --out runs/synthetic``.

Every method is solved to its optimum in float64. Further columns and methods: ``--help``.
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

    from depthbal.synthetic import Settings, run_benchmark
    from depthbal.synthetic.benchmark import print_table, write_table

    options = _parser().parse_args(arguments)
    settings = Settings(options.batch_size, options.n_components, options.noise_sigma)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    torch.set_num_threads(1)  # the arrays are small
    start = time.perf_counter()
    running = run_benchmark(options.columns, options.methods, seeds, settings, options.workers)
    console = Console()
    cells = []
    for cell in running:
        cells.append(cell)
        if options.verbose:
            console.print(f"{cell.column} {cell.method}: {time.perf_counter() - start:.1f} s")
    spent = {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": _processor_time()}
    about = {"seeds": seeds, "settings": vars(settings), **spent, "machine": machine()}
    write_table(cells, about, options.out)
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


def _parser() -> argparse.ArgumentParser:
    from depthbal.synthetic import COLUMNS, METHODS, TABLE_METHODS

    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/synthetic"))
    parser.add_argument(
        "--columns",
        nargs="+",
        default=COLUMNS,
        metavar="KIND_LEVEL",
        help="kinds normal, exponential, mvn; levels high, moderate, low, or a number",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(TABLE_METHODS),
        metavar="METHOD",
        help=", ".join(METHODS),
    )
    parser.add_argument("--batch-size", type=int, default=256, help="labels BMC sees")
    parser.add_argument("--n-components", type=int, help="of GAI's mixture; default: published")
    parser.add_argument("--noise-sigma", type=float, default=1.0, help="where it is given (*)")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--no-figures", action="store_true", help="the table only")
    parser.add_argument("--verbose", action="store_true", help="report every cell")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
