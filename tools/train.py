#!/usr/bin/env python
"""Train and evaluate: ``python tools/train.py --config configs/rooms/gai.yaml``."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.training.tool import run_tool

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "rooms" / "gai.yaml"


def main(arguments: Sequence[str]) -> None:
    """Run the training; see ``--help``."""
    from depthbal.training.train import train  # importing torch takes seconds

    train(arguments, DEFAULT_CONFIG)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
