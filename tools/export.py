#!/usr/bin/env python
"""Write a run for another runtime: ``python tools/export.py runs/rooms-gai --format onnx``."""

from collections.abc import Sequence

from depthbal.training.tool import run_tool


def main(arguments: Sequence[str]) -> None:
    """Export the run; see ``--help``."""
    from depthbal.exporting.command import export  # importing torch takes seconds

    export(arguments)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
