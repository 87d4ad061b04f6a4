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
from depthbal.reports.page.payload import constant_sigma, payload
from depthbal.reports.page.pictures import gallery
from depthbal.reports.provenance import facts
from depthbal.reports.report import Report
from depthbal.reports.resampling import LEVEL

STYLES = ("base", "figures")
SCRIPTS = ("base", "figures", "bins", "bin_figures", "label_figures", "run_figures", "page")

MAX_BYTES = 5_000_000
"""The page stays below, whatever the data."""

ATTEMPTS = ((78, ""), (55, ""), (30, ""), (30, "joint"), (30, "curves"))
"""Quality of the examples, and what goes besides: the next is tried where the page is too large."""

LEFT_OUT = {"joint": "joint histograms", "curves": "learning curves"}


def write_page(report: Report, out: str | Path) -> None:
    """Write the report of one or several runs as one self-contained html page.

    The page needs no network and stays below `MAX_BYTES`: examples are compressed more, and then
    joint histograms and learning curves are left out with a note, where it would not.

    Raises:
        ConfigError: more runs than fit.
    """
    plotly, data, gaps, runs = packed(get_plotlyjs()), payload(report), report.gaps, report.results
    for quality, part in ATTEMPTS:
        if part:
            data[part] = type(data[part])()
            gaps.append(f"{LEFT_OUT[part]}: left out, {len(runs)} runs would not fit into the page")
        text = _render(report, data, quality, plotly, gaps)
        if len(text.encode()) < MAX_BYTES:
            break
    else:
        raise ConfigError(
            f"{len(runs)} runs do not fit into a page of {MAX_BYTES:,} bytes; report fewer"
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
    first, runs, label = report.first, len(report.results), report.first.scores.label.name
    source = (first.scores.given.get("data") or {}).get("source")
    summary = [
        first.name if runs == 1 else f"{runs} evaluations, differences against {first.name}",
        f"{len(first.scores.names):,} test images",
        *([str(source)] if source else []),
        f"{int(first.bins.scored.sum())} bins",
    ]
    configs: dict[str, list[str]] = {}
    for result in report.results:
        configs.setdefault(result.config, []).append(result.name)
    scripts = "\n".join(_asset(f"js/{name}.js") for name in SCRIPTS)
    return environment.get_template("page.html").render(
        report=report,
        level=LEVEL,
        data=data,
        title=f"{label[:1].upper()}{label[1:]}, bin by bin",
        summary=" · ".join(summary),
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


def packed(text: str) -> str:
    """Return text compressed as base64: no character in it means anything to html."""
    # without the time of packing, equal content gives equal bytes
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _asset(path: str) -> str:
    return files("depthbal.reports.page").joinpath("assets", path).read_text(encoding="utf-8")
