#!/usr/bin/env python
"""Report runs: ``python tools/report.py runs/rooms-mse runs/rooms-gai --out report.html``."""

from collections.abc import Sequence

from depthbal.training.tool import run_tool


def main(arguments: Sequence[str]) -> None:
    """Write the report; see ``--help``."""
    from depthbal.reports.command import report  # importing torch takes seconds

    report(arguments)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
