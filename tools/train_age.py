#!/usr/bin/env python
"""Train and re-train age regression: ``python tools/train_age.py``."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.training.tool import run_tool

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "age"


def main(arguments: Sequence[str]) -> None:
    """Run a training, or the comparison of the drawn faces; see ``--help``."""
    from depthbal.adapters.age.command import run  # importing torch takes seconds

    run(arguments, Path(__file__), CONFIGS)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
