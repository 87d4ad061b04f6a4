"""Write the report as one html file: templates, styles, scripts and plotly packed into it."""

import base64
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from depthbal.errors import ConfigError
from depthbal.io import replacing
from depthbal.reports.page.curves import constant_sigma
from depthbal.reports.page.payload import payload
from depthbal.reports.page.pictures import Gallery, gallery
from depthbal.reports.page.provenance import configs, facts
from depthbal.reports.resampling import LEVEL
from depthbal.reports.tables import Report

STYLES = ("base", "tables", "figures", "narrow", "print")
SCRIPTS = (
    "packed",
    "format",
    "state",
    "theme",
    "layout",
    "touch",
    "registry",
    "bins",
    "error_figure",
    "difference_figure",
    "bias_figure",
    "distribution_figures",
    "calibration_figures",
    "training_figures",
    "tradeoff_figure",
    "bin_panel",
    "controls",
    "tables",
    "main",
)

MAX_BYTES = 5_000_000
"""The page stays below, whatever the data."""

QUALITIES = (78, 55, 30)
"""Of the examples; the next one is tried where the page would become too large."""


def write_page(report: Report, out: str | Path) -> None:
    """Write the report of one or several runs as one self-contained html page.

    The page needs no network and stays below `MAX_BYTES`: examples are compressed more, and then
    joint histograms and learning curves are left out with a note, where it would not.

    Raises:
        ConfigError: more runs than fit.
    """
    text = _fitting_page(report)
    with replacing(Path(out)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _fitting_page(report: Report) -> str:
    """Return the page, with as much as fits into `MAX_BYTES`."""
    plotly, data, shortened = packed(get_plotlyjs()), payload(report), list[str]()
    for quality in QUALITIES:
        text = _render(report, data, gallery(report, quality), plotly, shortened)
        if len(text.encode()) < MAX_BYTES:
            return text
    for part, title in (("joint", "joint histograms"), ("curves", "learning curves")):
        data[part] = type(data[part])()
        runs = len(report.results)
        shortened.append(f"{title}: left out, {runs} runs would not fit into the page")
        text = _render(report, data, gallery(report, QUALITIES[-1]), plotly, shortened)
        if len(text.encode()) < MAX_BYTES:
            return text
    raise ConfigError(
        f"{len(report.results)} runs do not fit into a page of {MAX_BYTES:,} bytes; report fewer"
    )


def _render(
    report: Report,
    data: dict[str, Any],
    examples: Gallery | None,
    plotly: str,
    shortened: list[str],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("depthbal.reports.page", "assets/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = "\n".join(read_asset(f"js/{name}.js") for name in SCRIPTS)
    return environment.get_template("page.html").render(
        report=report,
        level=LEVEL,
        data=data,
        title=f"{report.words.label[:1].upper()}{report.words.label[1:]}, bin by bin",
        summary=_summary(report),
        sentences=report.sentences,
        gaps=report.gaps + shortened,
        gallery=examples,
        constant_sigma=constant_sigma(report.results),
        facts=facts(report),
        configs=configs(report),
        style="\n".join(read_asset(f"css/{name}.css") for name in STYLES),
        script=f'(() => {{\n"use strict";\n\n{scripts}\n}})();\n',
        # NaN and infinity, which JSON has no name for, are an error
        payload=packed(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        plotly=plotly,
    )


def _summary(report: Report) -> str:
    first, runs = report.first, len(report.results)
    source = (first.protocol.get("data") or {}).get("source")
    parts = [
        first.name if runs == 1 else f"{runs} evaluations, differences against {first.name}",
        f"{len(first.scores.names):,} test images",
        str(source) if source else "",
        f"{int(first.bins.scored.sum())} bins",
    ]
    return " · ".join(part for part in parts if part)


def read_asset(path: str) -> str:
    """Return a text file of this package's assets."""
    return files("depthbal.reports.page").joinpath("assets", path).read_text(encoding="utf-8")


def packed(text: str) -> str:
    """Return text compressed as base64: no character in it means anything to html.

    Example:
        >>> gzip.decompress(base64.b64decode(packed("</script>"))).decode()
        '</script>'
    """
    # without the time of packing, equal content gives equal bytes
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")
