"""The report of runs as files."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.errors import ConfigError
from depthbal.files import replacing
from depthbal.reports.comparing import RESAMPLES, compare
from depthbal.reports.loading import CheckpointName, load_results
from depthbal.reports.markdown import markdown
from depthbal.reports.marks import HTML_MARK, MARKDOWN_MARK, require_replaceable
from depthbal.reports.protocols import comparable


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    checkpoint: CheckpointName = "last",
    resamples: int = RESAMPLES,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write report.html, and report.md beside it, of one or several runs.

    Evaluations of balancing a run afterwards are reported with it. Several results are compared,
    the first one is the baseline.

    Args:
        runs: run folders that were evaluated.
        out: the html file; the markdown file has the same name with .md.
        checkpoint: whose evaluation.
        resamples: of the comparison's intervals.
        seed: of the resampling.
        overwrite: whether files that are no reports may be replaced; reports always are.

    Returns:
        The html file.

    Raises:
        ConfigError: no run, a run twice, runs of different protocols, or a name that is not .html.
        RunFolderError: a run that is incomplete or damaged, or a file there that is no report.
    """
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"expected --out to end with .html, got {page}")
    text = page.with_suffix(".md")
    require_replaceable(page, HTML_MARK, overwrite)
    require_replaceable(text, MARKDOWN_MARK, overwrite)
    results = load_results(runs, checkpoint)
    comparison = compare(results, resamples, seed)
    results, _ = comparable(results)
    from depthbal.reports.page import write_page  # fonts, scripts and figures only where wanted

    write_page(results, comparison, page)
    with replacing(text) as temporary:
        temporary.write_text(markdown(results, comparison), encoding="utf-8")
    return page
