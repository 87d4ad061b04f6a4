"""Write the report as one html file: templates, styles, scripts and plotly packed into it."""

import base64
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from depthbal.errors import ConfigError
from depthbal.io import replacing
from depthbal.reports.page.curves import constant_sigma
from depthbal.reports.page.payload import payload
from depthbal.reports.page.pictures import gallery
from depthbal.reports.provenance import facts
from depthbal.reports.report import Report
from depthbal.reports.resampling import LEVEL

STYLES = ("base", "figures")
SCRIPTS = ("base", "figures", "bins", "bin_figures", "label_figures", "run_figures", "page")

MAX_BYTES = 5_000_000
"""The page stays below, whatever the data."""

QUALITIES = (78, 55, 30)
"""Of the examples; the next one is tried where the page would become too large."""

LEFT_OUT = {"joint": "joint histograms", "curves": "learning curves"}
"""What goes, one after the other, where that does not suffice."""


def write_page(report: Report, out: str | Path) -> None:
    """Write the report of one or several runs as one self-contained html page.

    The page needs no network and stays below `MAX_BYTES`: examples are compressed more, and then
    joint histograms and learning curves are left out with a note, where it would not.

    Raises:
        ConfigError: more runs than fit.
    """
    plotly, data, gaps = packed(get_plotlyjs()), payload(report), report.gaps
    attempts = [*((quality, "") for quality in QUALITIES), *((QUALITIES[-1], k) for k in LEFT_OUT)]
    for quality, part in attempts:
        if part:
            data[part] = type(data[part])()
            reason = f"{len(report.results)} runs would not fit into the page"
            gaps = [*gaps, f"{LEFT_OUT[part]}: left out, {reason}"]
        text = _render(report, data, quality, plotly, gaps)
        if len(text.encode()) < MAX_BYTES:
            break
    else:
        runs = len(report.results)
        raise ConfigError(
            f"{runs} runs do not fit into a page of {MAX_BYTES:,} bytes; report fewer"
        )
    with replacing(Path(out)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _render(
    report: Report, data: dict[str, Any], quality: int, plotly: str, gaps: list[str]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("depthbal.reports.page", "assets/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    label = report.first.scores.label.name
    configs: dict[str, list[str]] = {}
    for result in report.results:
        configs.setdefault(result.config, []).append(result.name)
    scripts = "\n".join(_asset(f"js/{name}.js") for name in SCRIPTS)
    return environment.get_template("page.html").render(
        report=report,
        level=LEVEL,
        data=data,
        title=f"{label[:1].upper()}{label[1:]}, bin by bin",
        summary=_summary(report),
        gaps=gaps,
        gallery=gallery(report, quality),
        constant_sigma=constant_sigma(report.results),
        facts=facts(report.results),
        configs={text: "; ".join(names) for text, names in configs.items() if text},
        style="\n".join(_asset(f"css/{name}.css") for name in STYLES),
        script=f'(() => {{\n"use strict";\n\n{scripts}\n}})();\n',
        # NaN and infinity, which JSON has no name for, are an error
        payload=packed(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        plotly=plotly,
        plotly_version=get_plotlyjs_version(),
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


def packed(text: str) -> str:
    """Return text compressed as base64: no character in it means anything to html."""
    # without the time of packing, equal content gives equal bytes
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _asset(path: str) -> str:
    return files("depthbal.reports.page").joinpath("assets", path).read_text(encoding="utf-8")
