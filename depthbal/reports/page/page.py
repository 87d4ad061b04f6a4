"""Write the report as one html file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthbal.errors import ConfigError
from depthbal.files import replacing
from depthbal.reports.comparison import Comparison
from depthbal.reports.page import answer, provenance
from depthbal.reports.page.assets import (
    environment,
    packed_json,
    packed_plotly,
    script,
    style_sheet,
)
from depthbal.reports.page.payload import payload
from depthbal.reports.page.pictures import Gallery, gallery
from depthbal.reports.page.training_lines import constant_sigma
from depthbal.reports.page.view import View, make_view, statistic_name
from depthbal.reports.rebinning import binnings
from depthbal.reports.results import RunResult

MAX_BYTES = 5_000_000
"""The page stays below, whatever the data."""

QUALITIES = (78, 55, 30)
"""Of the examples; the next one is tried where the page would become too large."""


def write_page(
    results: Sequence[RunResult], comparison: Comparison | None, out: str | Path
) -> None:
    """Write the report of one or several runs as one self-contained html page.

    The page needs no network and stays below `MAX_BYTES`: examples are compressed more, and then
    joint histograms and learning curves are left out with a note, where it would not.

    Args:
        results: the runs; the first is the reference of all differences.
        comparison: of these runs, or None for a single one.
        out: the html file, written complete or not at all.

    Raises:
        ValueError: no result.
        ConfigError: more runs than fit.
    """
    if not results:
        raise ValueError("expected at least one result to report")
    shown = comparison.binnings if comparison is not None else binnings(results[0])
    view = make_view(results, comparison, shown)
    text = _fitting_page(view)
    with replacing(Path(out)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _fitting_page(view: View) -> str:
    """Return the page, with as much as fits into `MAX_BYTES`."""
    plotly = packed_plotly()
    data = payload(view)
    shortened: list[str] = []
    for quality in QUALITIES:
        text = _render(view, data, gallery(view, quality), plotly, shortened)
        if len(text.encode()) < MAX_BYTES:
            return text
    for part, title in (("joint", "joint histograms"), ("curves", "learning curves")):
        data[part] = type(data[part])()
        shortened.append(f"{title}: left out, {len(view.results)} runs would not fit into the page")
        text = _render(view, data, gallery(view, QUALITIES[-1]), plotly, shortened)
        if len(text.encode()) < MAX_BYTES:
            return text
    raise ConfigError(
        f"{len(view.results)} runs do not fit into a page of {MAX_BYTES:,} bytes; report fewer"
    )


def _render(
    view: View, data: dict[str, Any], examples: Gallery | None, plotly: str, shortened: list[str]
) -> str:
    tables = answer.answer_tables(view)
    template = environment().get_template("page.html")
    return template.render(
        view=view,
        data=data,
        title=_title(view),
        summary=_summary(view),
        tables=tables,
        lead=answer.lead(view),
        sentences=answer.sentences(view),
        statistic_name=lambda statistic: statistic_name(view, statistic),
        notes=list(view.comparison.notes) if view.comparison is not None else [],
        gaps=[*provenance.gaps(view), *shortened],
        gallery=examples,
        constant_sigma=constant_sigma(view.results),
        facts=provenance.facts(view),
        configs=provenance.configs(view),
        style=style_sheet(),
        script=script(),
        payload=packed_json(data),
        plotly=plotly,
    )


def _title(view: View) -> str:
    label = view.words.label
    return f"{label[:1].upper()}{label[1:]}, bin by bin"


def _summary(view: View) -> str:
    first = view.results[0]
    runs = len(view.results)
    protocol = first.metrics["protocol"]
    source = (protocol.get("data") or {}).get("source")
    parts = [
        first.name if runs == 1 else f"{runs} evaluations, differences against {first.name}",
        f"{len(first.names):,} test images",
        str(source) if source else "",
        f"{int(first.bins.scored.sum())} bins",
    ]
    return " · ".join(part for part in parts if part)
