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
    from depthbal.synthetic import COLUMNS, METHODS, TABLE_METHODS, Settings, run_benchmark
    from depthbal.synthetic.benchmark import print_table, write_table

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
        from depthbal.synthetic.figures import write_figures

        write_figures(cells, seeds, options.out)
    print(f"Written: {options.out}")


if __name__ == "__main__":
    raise SystemExit(run(main))
