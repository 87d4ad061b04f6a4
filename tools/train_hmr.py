#!/usr/bin/env python
"""Human mesh recovery: ``python tools/train_hmr.py`` compares MSE and GAI on synthetic people."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.training.tool import run_tool

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "hmr"


def main(arguments: Sequence[str]) -> None:
    """Train, check files or draw; see the README."""
    from depthbal.adapters.hmr.command import run_command  # importing torch takes seconds

    run_command(arguments, CONFIGS)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
