"""``depthbal report``: runs and evaluations on one page."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Write the report of results as one html page, with a markdown text beside it."""
    parser = argparse.ArgumentParser(
        prog="depthbal report",
        description="Report one result, or compare several on the same test images, with paired "
        "intervals; writes one self-contained html page and a markdown text beside it.",
        epilog="Example: depthbal report runs/mse runs/gai runs/mse/eval/posthoc_1 --out all.html",
        allow_abbrev=False,
    )
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="RESULT", help="run folder, or one of RUN/eval"
    )
    parser.add_argument(
        "--out", type=Path, help="html file; default: report.html in the only result, or here"
    )
    parser.add_argument("--resamples", type=int, help="for intervals")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are no reports of depthbal"
    )
    known = parser.parse_args(arguments)

    from rich.console import Console

    from depthbal.reports import write_report

    folder = known.results[0] if len(known.results) == 1 else Path()
    options = {} if known.resamples is None else {"resamples": known.resamples}
    out = known.out or folder / "report.html"
    page = write_report(known.results, out, seed=known.seed, overwrite=known.overwrite, **options)
    console = Console()
    for path in (page, page.with_suffix(".md")):
        console.print(f"Written: {path}", highlight=False, soft_wrap=True)
