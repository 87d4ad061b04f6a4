#!/usr/bin/env python
"""Measure what GAI's number of components does: ``python tools/sweep_components.py --of age``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ablating

from depthbal.training.tool import run_tool

COMPONENTS = {"depth": [1, 2, 4, 8, 16, 32], "age": [1, 2, 4, 8, 128]}


def main(arguments: Sequence[str]) -> None:
    """Train with every number of components; other options go to the training."""
    known, rest = ablating.parse(arguments, main.__doc__, "components", add_options)
    from depthbal.training.sweep import sweep_components  # importing torch takes seconds

    study = sweep_components(
        ablating.subject_of(known),
        known.components or COMPONENTS[known.of],
        known.seeds,
        known.out,
        rest,
        metric=ablating.METRIC_OF[known.of],
    )
    ablating.write(study, known, "components")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this tool understands."""
    parser.add_argument("--components", type=int, nargs="+", metavar="K")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
