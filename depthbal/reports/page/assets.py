"""Styles, scripts and templates that lie beside this module, and plotly, packed for one file."""

import base64
import gzip
import json
from importlib.resources import files
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs, get_plotlyjs_version

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


def read_asset(path: str) -> str:
    """Return a text file of this package's assets."""
    return files("depthbal.reports.page").joinpath("assets", path).read_text(encoding="utf-8")


def style_sheet() -> str:
    """Return all styles as one."""
    return "\n".join(read_asset(f"css/{name}.css") for name in STYLES)


def script() -> str:
    """Return all scripts in the scope of one function."""
    parts = "\n".join(read_asset(f"js/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n\n{parts}\n}})();\n'


def packed(text: str) -> str:
    """Return text compressed as base64: no character in it means anything to html.

    Example:
        >>> gzip.decompress(base64.b64decode(packed("</script>"))).decode()
        '</script>'
    """
    # without the time of packing, equal content gives equal bytes
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def packed_json(content: Any) -> str:
    """Return JSON-able content compressed as base64.

    Raises:
        ValueError: NaN or infinite numbers, which JSON has no name for.
    """
    return packed(json.dumps(content, allow_nan=False, separators=(",", ":")))


def packed_plotly() -> str:
    """Return plotly.js compressed as base64."""
    return packed(get_plotlyjs())


def plotly_version() -> str:
    """Return the version of the embedded plotly.js."""
    return str(get_plotlyjs_version())


def environment() -> jinja2.Environment:
    """Return the templates' environment; everything that is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("depthbal.reports.page", "assets/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
