#!/usr/bin/env python
"""Bring a published model over: ``python tools/convert_checkpoint.py FILE.pth.tar --out RUN``."""

from collections.abc import Sequence

from depthbal.training.tool import run_tool


def main(arguments: Sequence[str]) -> None:
    """Run the conversion; see ``--help``."""
    from depthbal.training.convert_command import convert  # importing torch takes seconds

    convert(arguments)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
