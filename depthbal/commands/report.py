"""``depthbal report``: runs and evaluations on one page."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.commands import make_parser


def main(arguments: Sequence[str]) -> None:
    """Write the report of results as one html page, with a markdown text beside it."""
    parser = make_parser(
        "report",
        "Report one result, or compare several on the same test images, with paired intervals; "
        "writes one self-contained html page and a markdown text beside it.",
        "runs/mse runs/gai runs/mse/eval/posthoc_1 --out all.html",
    )
    add = parser.add_argument
    add("results", type=Path, nargs="+", metavar="RESULT", help="run folder, or one of RUN/eval")
    add("--out", type=Path, help="html file; default: report.html in the only result, or here")
    add("--resamples", type=int, help="for intervals")
    add("--seed", type=int, default=0, help="of the resampling")
    add("--overwrite", action="store_true", help="replace files that are no reports of depthbal")
    known = parser.parse_args(arguments)

    from depthbal.reports import write_report

    folder = known.results[0] if len(known.results) == 1 else Path()
    options = {} if known.resamples is None else {"resamples": known.resamples}
    out = known.out or folder / "report.html"
    page = write_report(known.results, out, seed=known.seed, overwrite=known.overwrite, **options)
    print(f"Written: {page}\nWritten: {page.with_suffix('.md')}")
