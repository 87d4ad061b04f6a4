"""The report of results as files."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.errors import ConfigError, RunFolderError
from depthbal.io import replacing
from depthbal.reports import markdown
from depthbal.reports.comparing import RESAMPLES, compare
from depthbal.reports.results import load_results
from depthbal.reports.tables import Report

HTML_MARK = '<meta name="generator" content="depthbal">'
"""Stands in the head of every page; by it reports are told from files that are not ours."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write report.html, and report.md beside it, of one or several results.

    Several results are compared, the first one is the baseline.

    Args:
        folders: run folders that were evaluated, their evaluations RUN/eval/NAME, or folders with
            the scores.npz of anybody's predictions; see `load_results`.
        out: the html file; the markdown file has the same name with .md.
        resamples: of the comparison's intervals.
        seed: of the resampling.
        overwrite: whether files that are no reports may be replaced; reports always are.

    Returns:
        The html file.

    Raises:
        ConfigError: no folder, one twice, results of different protocols, or a name that is not
            .html.
        RunFolderError: a folder without scores.npz, or a file there that is no report.
    """
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"expected --out to end with .html, got {page}")
    text = page.with_suffix(".md")
    require_replaceable(page, HTML_MARK, overwrite)
    require_replaceable(text, markdown.MARK, overwrite)
    results = load_results(folders)
    comparison = compare(results, resamples, seed)
    report = Report(comparison.results if comparison else results, comparison)
    from depthbal.reports.page import write_page  # fonts, scripts and figures only where wanted

    write_page(report, page)
    with replacing(text) as temporary:
        temporary.write_text(markdown.markdown(report), encoding="utf-8")
    return page


def require_replaceable(path: Path, mark: str, overwrite: bool) -> None:
    """Check, without touching anything, that a report may be written to ``path``."""
    if path.is_dir():
        raise RunFolderError(f"{path} is a folder; name a file, such as {path / 'report.html'}")
    if path.exists() and not overwrite:
        with path.open("rb") as file:
            ours = mark.encode() in file.read(1 << 16)
        if not ours:
            raise RunFolderError(
                f"{path} is not a report of depthbal; choose another file with --out, or replace "
                "it with --overwrite"
            )
