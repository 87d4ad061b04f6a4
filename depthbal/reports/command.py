"""The report command."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from depthbal.reports.comparing import RESAMPLES
from depthbal.reports.writing import write_report


def report(arguments: Sequence[str]) -> None:
    """Write the report of runs as one html page, with a markdown text beside it.

    Args:
        arguments: The command line: ``RUN [RUN...]``, ``--out``, ``--checkpoint``,
            ``--resamples``, ``--seed``, ``--overwrite``.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = argparse.ArgumentParser(
        prog="tools/report.py",
        description="Report one run, or compare several on the same test images; writes one "
        "self-contained html page and a markdown text beside it. Evaluations of balancing a run "
        "afterwards are reported with it.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    parser.add_argument(
        "--out",
        type=Path,
        help="html file; default: report.html in the run folder, or here for several runs",
    )
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help=f"for intervals; default {RESAMPLES}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are no reports of depthbal"
    )
    known = parser.parse_args(arguments)
    folder = known.runs[0] if len(known.runs) == 1 else Path()
    page = write_report(
        known.runs,
        folder / "report.html" if known.out is None else known.out,
        checkpoint=known.checkpoint,
        resamples=known.resamples,
        seed=known.seed,
        overwrite=known.overwrite,
    )
    console = Console()
    for path in (page, page.with_suffix(".md")):
        console.print(f"Written: {path}", highlight=False, soft_wrap=True)
