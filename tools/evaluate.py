#!/usr/bin/env python
"""Evaluate a run on its test split: ``python tools/evaluate.py runs/rooms-gai``."""

from collections.abc import Sequence

from depthbal.training.tool import run_tool


def main(arguments: Sequence[str]) -> None:
    """Run the evaluation; see ``--help``."""
    from depthbal.adapters.age.application import AGE  # importing torch takes seconds
    from depthbal.adapters.hmr.application import HMR
    from depthbal.training.evaluate_command import evaluate

    evaluate(arguments, (AGE, HMR))


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
