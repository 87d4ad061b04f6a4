"""The report of results as files: one self-contained html page, and its numbers as markdown."""

import base64
import gzip
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from depthbal.errors import ConfigError, RunFolderError
from depthbal.io import replacing
from depthbal.reports.comparing import RESAMPLES, compare
from depthbal.reports.payload import payload
from depthbal.reports.report import Comparison
from depthbal.reports.resampling import LEVEL
from depthbal.reports.results import Result, load_results
from depthbal.reports.vocabulary import flat, short

# by these reports are told from files that are not ours
HTML_MARK = '<meta name="generator" content="depthbal">'
MARKDOWN_MARK = "<!-- depthbal report -->"

STYLES = ("base", "figures")
SCRIPTS = ("base", "figures", "bins", "bin_figures", "label_figures", "run_figures", "page")

MAX_BYTES = 5_000_000
"""The page stays below, whatever the data."""

ATTEMPTS = (
    *((78, ""), (55, ""), (30, ""), (30, "joint histograms"), (30, "learning curves")),
    (30, "read-outs that no run is reported in"),
)
"""Quality of the examples, and what goes besides: the next is tried where the page is too large."""

BEYOND_ROWS = 8
"""Parts of the range that predictions of labels beyond it are counted in."""

SESSIONS = "earlier_sessions"
"""In run.json of a run that was resumed: what each session before the last was made with."""

DURATIONS = ("duration_s", "total_duration_s")
TRAINING = ("command", "seed", "device", "threads", *DURATIONS)
"""What of run.json stands in the table of the training."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write report.html, and report.md beside it, of one or several results.

    Args:
        folders: as for `load_results`; several are compared, the first one is the baseline.
        out: the html file; the markdown file has the same name with .md.
        resamples: of the comparison's intervals.
        seed: of the resampling.
        overwrite: whether files that are no reports may be replaced; reports always are.

    Returns:
        The html file.

    Raises:
        ConfigError: no folder, one twice, unlike protocols, or a name that is not .html.
        RunFolderError: a folder without scores.npz, or a file there that is no report.
    """
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"expected --out to end with .html, got {page}")
    text = page.with_suffix(".md")
    for path, mark in ((page, HTML_MARK), (text, MARKDOWN_MARK)):
        if path.exists() and not overwrite and mark.encode() not in path.read_bytes():
            raise RunFolderError(
                f"{path} is not a report of depthbal; choose another file with --out, or replace "
                "it with --overwrite"
            )
    report = compare(load_results(folders), resamples, seed)
    write_page(report, page)
    with replacing(text) as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
    return page


# ---- the page ----


def write_page(report: Comparison, out: Path) -> None:
    """Write the page, which needs no network and stays below `MAX_BYTES`."""
    from depthbal.reports.pictures import gallery

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("depthbal.reports", "assets/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template, data, runs = environment.get_template("page.html"), payload(report), report.results
    parts, gaps, pictures = _parts(report), [], cache(partial(gallery, report))
    for quality, part in ATTEMPTS:
        if part:
            _leave_out(data, part)
            gaps.append(f"{part}: left out, {len(runs)} runs would not fit into the page")
        if part or "payload" not in parts:  # else nothing but the pictures has changed
            # NaN and infinity, which JSON has no name for, are an error
            text = json.dumps(data, allow_nan=False, separators=(",", ":"))
            parts |= {"data": data, "payload": packed(text)}
        text = template.render(**parts, gallery=pictures(quality), gaps=gaps)
        if len(text.encode()) < MAX_BYTES:
            break
    else:
        raise ConfigError(f"{len(runs)} runs do not fit into {MAX_BYTES:,} bytes; report fewer")
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _leave_out(data: dict[str, Any], part: str) -> None:
    """Take a part that `ATTEMPTS` names out of the page's data."""
    if part == "joint histograms":
        data["joint"] = {}
    elif part == "learning curves":
        data["curves"] = []
    else:
        for key, rows in data["bins"].items():
            pairs = zip(rows, data["runs"], strict=True)
            rows[:] = [row if key.endswith(f"/{run['main']}") else None for row, run in pairs]
        data["bins"] = {key: rows for key, rows in data["bins"].items() if any(rows)}
        data["readouts"] = []


def _parts(report: Comparison) -> dict[str, Any]:
    """Return what the page shows besides figures and pictures."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version  # slow, and only wanted here

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
    assets = files("depthbal.reports") / "assets"
    style, scripts = (
        "\n".join((assets / kind / f"{name}.{kind}").read_text(encoding="utf-8") for name in names)
        for kind, names in (("css", STYLES), ("js", SCRIPTS))
    )
    return {
        "report": report,
        "level": LEVEL,
        "title": f"{label[:1].upper()}{label[1:]}, bin by bin",
        "summary": " · ".join(summary),
        "facts": facts(report.results),
        "configs": {text: "; ".join(names) for text, names in configs.items() if text},
        "style": style,
        "script": f'(() => {{\n"use strict";\n\n{scripts}\n}})();\n',
        "plotly": packed(get_plotlyjs()),
        "plotly_version": get_plotlyjs_version(),
    }


def packed(text: str) -> str:
    """Return text compressed as base64: no character in it means anything to html."""
    # without the time of packing, equal content gives equal bytes
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


# ---- markdown ----


def markdown(report: Comparison) -> str:
    """Return the report as markdown: the tables of the page's answer, sentences, protocol."""
    parts = [f"# {literal(' · '.join(result.name for result in report.results))}", report.lead]
    for table in report.tables:
        how = report.statistic_name(table["statistic"])
        title = f"{table['metric'].title}, {how}"
        if len(report.results) > 1:
            title += f"; difference to the first row [{100 * LEVEL:.0f} % interval]"
        rows = [["run", *table["groups"]]]
        for row in table["rows"]:
            cells = (f"{c['value']} {c['change']} {c['interval']}".rstrip() for c in row["cells"])
            rows.append([row["name"], *cells])
        parts += [f"{title}:", table_text(rows)]
    seeds = [
        f"{method.name}: mean of {'; '.join(report.results[run].name for run in method.runs)}."
        for method in report.methods
        if len(method.runs) > 1
    ]
    if lines := report.protocols["rows"]:
        head = [*lines[0]["about"], *(info.title for info in report.protocols["metrics"])]
        rows = [[*one["about"].values(), *(text for text, _ in one["values"])] for one in lines]
        ways = [f"{way}: {what}" for way, what in report.protocols["notes"].items()]
        parts += ["## By protocol", table_text([head, *rows]), f"Alignment. {'; '.join(ways)}."]
    sections = {"Comparison": [*seeds, *report.sentences, *report.notes]}
    for table in facts(report.results):
        own = sections.setdefault(table["title"], [])
        for fact, values in table["rows"]:
            runs = zip(values, table["columns"], strict=True)
            several = "; ".join(f"{value} for {run}" for value, run in runs)
            own.append(f"{fact}: {several if len(set(values)) > 1 else values[0]}")
    for title, lines in sections.items():
        if lines:
            parts += [f"## {title}", "\n".join(f"- {literal(line)}" for line in lines)]
    without_tags = [re.sub(r"<(?=[A-Za-z/!?])", "&lt;", part) for part in parts]
    return "\n\n".join([MARKDOWN_MARK, *without_tags]) + "\n"


def literal(text: str) -> str:
    """Return text that is shown as it is: names of runs may hold anything."""
    special = r"[\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|(?<!\S)#"
    return re.sub(special, r"\\\g<0>", " ".join(text.split()))


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table, numbers to the right of the first column, which is text."""
    cells = [[literal(cell).replace("|", "\\|") for cell in row] for row in rows]
    first, *others = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([first, "|---|" + "---:|" * (len(cells[0]) - 1), *others])


# ---- how the numbers were made ----


def facts(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return tables of (name, a value per run, or one where all agree in everything)."""
    parts, names = [_facts(result) for result in results], [result.name for result in results]
    tables = []
    for title in parts[0]:
        columns = [flat(part[title]) for part in parts]
        rows = []
        for key in dict.fromkeys(key for column in columns for key in column):
            values = [column.get(key, "–") for column in columns]
            if set(values) != {"–"}:
                # "total duration (s)" of total_duration_s
                word = re.sub(r"_([ms])$", r" (\1)", key).replace("_", " ")
                rows.append((word, values))
        if all(len(set(values)) == 1 for _, values in rows):
            rows = [(name, values[:1]) for name, values in rows]
        if rows:
            shown = names if len(rows[0][1]) == len(names) else [""]
            tables.append({"title": title, "columns": shown, "rows": rows})
    return tables


def _facts(result: Result) -> dict[str, Mapping[str, Any]]:
    """Return the tables' rows of one result."""
    record, protocol, bins = result.record, result.metrics["protocol"], result.bins.describe()
    training = {key: record[key] for key in TRAINING if key in record}
    training["run folder"] = str(result.run)
    if result.path != result.run:
        training["evaluation"] = result.path.name
    if result.noise_sigma is not None:
        training["sigma"] = f"{result.noise_sigma:.6g} {result.sigma_unit}".rstrip()
    named = {
        "readout": result.readout_name(),
        "readouts": [*map(result.readout_name, result.readouts)],
    }
    return {
        "Evaluation protocol": {k: v for k, v in protocol.items() if k != "bins"}
        | (named if result.scores.main else {}),
        "Predictions of what lies beyond": _beyond(result),
        "Bins and shots": {
            **{key: bins[key] for key in ("rule", "shot_rule", "edges") if bins[key]},
            "scored bins": len(bins["scored"]),
            **{f"{shot}-shot bins": len(numbers) for shot, numbers in bins["shots"].items()},
        },
        "Training data": record.get("data") or {},
        "Training": training,
        "Earlier sessions": _sessions(record),
        "Versions": {k: v for k, v in record.items() if k not in (*TRAINING, SESSIONS, "data")},
        "Prior": _prior(result),
    }


def _beyond(result: Result) -> dict[str, str]:
    """Return where labels are predicted that are only known to lie beyond the range, if any."""
    counts, edges = result.scores.beyond(), result.bins.edges
    if counts is None:
        return {}
    total, unit = counts[:-1].sum(), result.scores.label.unit
    rows = {f"beyond {short(edges[-1])} {unit}": f"{total:,} {result.items}"}
    ends = np.unique(np.linspace(0, len(edges) - 1, BEYOND_ROWS + 1).round().astype(int)).tolist()
    for low, high in itertools.pairwise(ends):
        share = counts[low + 1 : high + 1].sum() / total
        rows[f"at {short(edges[low])} to {short(edges[high])} {unit}"] = f"{100 * share:.2f} %"
    rows[f"farther than {short(edges[-1])} {unit}"] = f"{100 * counts[-2] / total:.2f} %"
    return rows


def _sessions(record: Mapping[str, Any]) -> dict[str, str]:
    """Return how long each session before a resumed run's last took, and what differed in it."""
    last, rows = flat({k: v for k, v in record.items() if k != SESSIONS}), {}
    for number, session in enumerate(record.get(SESSIONS, []), start=1):
        own, name = flat(session), f"session {number}"
        rows[name] = f"{own['duration_s']} s" if "duration_s" in own else "cut off before its end"
        changed = [key for key in own if key not in DURATIONS and own[key] != last.get(key)]
        rows |= {f"{name}, {key}": own[key] for key in changed}
    return rows


def _prior(result: Result) -> dict[str, str]:
    rows, histogram, prior = {}, result.histogram, result.prior
    if histogram is not None:
        ends = f"{short(histogram.edges[0])} to {short(histogram.edges[-1])}"
        labels = f"{result.scores.label.unit}, {histogram.total:,.0f} labels"
        rows["training histogram"] = f"{len(histogram.counts)} bins, {ends} {labels}"
    if prior is not None:
        size = f", {prior.event_dim}-dimensional" if prior.event_dim else ""
        rows["prior"] = f"mixture of {len(prior.weights)} normals{size}"
        if not prior.event_dim:
            parts = {"weights": prior.weights, "means": prior.means}
            parts["standard deviations"] = prior.variances.sqrt()
            rows |= {k: ", ".join(f"{x:.4g}" for x in v.tolist()) for k, v in parts.items()}
    return rows
