#!/usr/bin/env python
"""Measure what sigma does: ``python tools/sweep_sigma.py --sigmas 0.25 0.5 1 2``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ablating

from depthbal.training.tool import run_tool

SIGMAS = {
    "depth": [0.25, 0.5, 0.75, 1.0, 1.5, 2.0],
    "age": [2.0, 4.0, 6.0, 7.0, 8.0, 10.0, 14.0],
}


def main(arguments: Sequence[str]) -> None:
    """Train at every sigma and with a learned one; other options go to the training."""
    known, rest = ablating.parse(arguments, main.__doc__, "sigma", add_options)
    from depthbal.training.sweep import sweep_sigma  # importing torch takes seconds

    study = sweep_sigma(
        ablating.subject_of(known),
        known.sigmas or SIGMAS[known.of],
        known.seeds,
        known.out,
        rest,
        metric=ablating.METRIC_OF[known.of],
        unit=ablating.UNIT_OF[known.of],
        learned=not known.no_learned,
    )
    ablating.write(study, known, "sigma")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this tool understands."""
    parser.add_argument("--sigmas", type=float, nargs="+", help="in the label's unit")
    parser.add_argument("--no-learned", action="store_true", help="fixed sigmas only")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
