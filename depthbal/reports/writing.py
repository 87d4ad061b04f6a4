"""The report of results as files: the html page, and the same numbers as markdown."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from depthbal.errors import ConfigError, RunFolderError
from depthbal.io import replacing
from depthbal.reports.comparing import RESAMPLES, compare
from depthbal.reports.provenance import facts
from depthbal.reports.report import Report
from depthbal.reports.resampling import LEVEL
from depthbal.reports.results import load_results

# by these reports are told from files that are not ours
HTML_MARK = '<meta name="generator" content="depthbal">'
MARKDOWN_MARK = "<!-- depthbal report -->"


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
    for path, mark in ((page, HTML_MARK), (text, MARKDOWN_MARK)):
        if path.is_dir():
            raise RunFolderError(f"{path} is a folder; name a file, such as {path / page.name}")
        if path.exists() and not overwrite and mark.encode() not in path.read_bytes():
            raise RunFolderError(
                f"{path} is not a report of depthbal; choose another file with --out, or replace "
                "it with --overwrite"
            )
    results = load_results(folders)
    comparison = compare(results, resamples, seed)
    report = Report(comparison.results if comparison else results, comparison)
    from depthbal.reports.page import write_page  # fonts, scripts and figures only where wanted

    write_page(report, page)
    with replacing(text) as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
    return page


# ---- markdown ----


def markdown(report: Report) -> str:
    """Return the report as markdown: the tables of the page's answer, sentences, protocol."""
    parts = [f"# {literal(' · '.join(result.name for result in report.results))}", report.lead]
    for table in report.tables:
        how = report.statistic_name(table["statistic"])
        title = f"{table['metric'].title}, {how}"
        if report.comparison:
            title += f"; difference to the first row [{100 * LEVEL:.0f} % interval]"
        rows = [
            [
                r["name"],
                *(f"{c['value']} {c['change']} {c['interval']}".rstrip() for c in r["cells"]),
            ]
            for r in table["rows"]
        ]
        parts += [f"{title}:", _table(["run", *table["groups"]], rows)]
    seeds = [
        f"{method.name}: mean of {'; '.join(report.results[run].name for run in method.runs)}."
        for method in report.methods
        if len(method.runs) > 1
    ]
    sections = {"Comparison": [*seeds, *report.sentences, *report.notes], "Missing": report.gaps}
    for table in facts(report.results):
        sections[table["title"]] = [
            f"{name}: {_values(report, values)}" for name, values in table["rows"]
        ]
    for title, lines in sections.items():
        if lines:
            parts += [f"## {title}", "\n".join(f"- {literal(line)}" for line in lines)]
    without_tags = [re.sub(r"<(?=[A-Za-z/!?])", "&lt;", part) for part in parts]
    return "\n\n".join([MARKDOWN_MARK, *without_tags]) + "\n"


def literal(text: str) -> str:
    """Return text that is shown as it is: names of runs may hold anything."""
    special = r"[\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|(?<!\S)#"
    return re.sub(special, r"\\\g<0>", " ".join(text.split()))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table, numbers to the right of the first column, which is text."""
    cells = [[literal(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    first, *others = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([first, "|---|" + "---:|" * (len(header) - 1), *others])


def _values(report: Report, values: Sequence[str]) -> str:
    """Return a fact of every run, once where all agree."""
    pairs = zip(values, report.results, strict=False)
    several = len(set(values)) > 1
    return "; ".join(f"{value} for {r.name}" for value, r in pairs) if several else values[0]
