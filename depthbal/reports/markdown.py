"""The report as a markdown text: tables, differences, protocol."""

import re
from collections.abc import Iterable, Sequence

from depthbal.evaluation import GROUPS
from depthbal.reports.comparing import STATISTICS, Comparison, Statistic
from depthbal.reports.resampling import LEVEL
from depthbal.reports.sentences import interval_text, notes_of, repetitions
from depthbal.reports.tables import Report

MARK = "<!-- depthbal report -->"
"""The first line of every report.md."""

LEFT_OUT = ("mse", "log10", "silog", "delta2", "delta3")
"""Metrics whose differences the text leaves to the page, as others say nearly the same."""


def markdown(report: Report) -> str:
    """Return the report of one or several results as markdown."""
    parts = [
        f"# {literal(' · '.join(result.name for result in report.results))}",
        *_main_tables(report),
        *_other_metrics(report),
        *(_comparison(report, report.comparison) if report.comparison else ()),
        "## Protocol",
        _bullets(protocol_lines(report)),
        *(["## Missing", _bullets(report.gaps)] if report.gaps else []),
    ]
    without_tags = [re.sub(r"<(?=[A-Za-z/!?])", "&lt;", part) for part in parts]
    return "\n\n".join([MARK, *without_tags]) + "\n"


def literal(text: str) -> str:
    """Return text that is shown as it is: names of runs may hold anything.

    Example:
        >>> print(literal("gai*_2 of *mse* in run_1"))
        gai\\*\\_2 of \\*mse\\* in run_1
    """
    special = r"[\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|(?<!\S)#"
    return re.sub(special, r"\\\g<0>", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a markdown table, numbers to the right of the first columns, which are text.

    Example:
        >>> print(table(["run", "few"], [["a|b", "1.0"]]))
        | run | few |
        |---|---:|
        | a\\|b | 1.0 |
    """
    cells = [[literal(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    text = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|" + "---|" * texts + "---:|" * (len(header) - texts)
    return "\n".join([text[0], rule, *text[1:]])


def protocol_lines(report: Report) -> list[str]:
    """Return the protocol of the first result in words."""
    first, words = report.first, report.words
    protocol, bins = first.protocol, first.bins
    lines = [
        f"protocol: {protocol.get('name', 'unnamed')}",
        f"averaging: {protocol['averaging']}",
        f"test data: {len(first.scores.names):,} images, {int(first.counts.sum()):,} {words.items} "
        "in scored bins",
        f"bins: {len(bins)}, {int(bins.scored.sum())} of them scored, {bins.edges[0]:g} to "
        f"{bins.edges[-1]:g} {words.unit}; {bins.rule}",
        f"shots: {bins.shot_rule or 'none'}",
    ]
    if mask := protocol.get("mask"):
        lines.append(
            f"balanced mask: {mask.get('source')}, seed {mask.get('seed')}, {mask.get('per_bin')} "
            f"pixels from every bin, fingerprint {mask.get('fingerprint')}"
        )
    data = protocol.get("data") or {}
    return lines + [f"data, {key}: {data[key]}" for key in ("source", "class") if data.get(key)]


def _how(report: Report, statistic: Statistic) -> str:
    """Say what a table's numbers are averaged over."""
    words, scores = report.words, report.first.scores
    if statistic == "bins":
        return f"mean over the non-empty bins of {words.label}, all {words.items}"
    if scores.averaging == "images":
        return "mean over images"
    if scores.headline == "mask":
        return f"pooled over the {words.items} of the balanced mask (every bin alike)"
    return f"pooled over all {words.items}"


def _main_tables(report: Report) -> list[str]:
    """Return the main metric of every shot: the top-level numbers, and the means over bins."""
    info = report.main
    several = any(len(result.readouts) > 1 for result in report.results)
    texts = ["run", "read-out"] if several else ["run"]
    parts = [f"## {info.title}"]
    for statistic in reversed(STATISTICS):
        rows = []
        for run, result in enumerate(report.results):
            numbers = report.numbers((run,), info.key, statistic)
            values = [info.fixed(numbers[group]) for group in GROUPS]
            rows.append([result.name, *([result.readout] if several else []), *values])
        parts.append(f"{info.title}, {_how(report, statistic)}:")
        parts.append(table([*texts, *GROUPS], rows, len(texts)))
    return parts


def _other_metrics(report: Report) -> list[str]:
    infos = report.metrics[1:]
    if not infos:
        return []
    rows = []
    for run, result in enumerate(report.results):
        overall = [report.numbers((run,), info.key, "pooled")["overall"] for info in infos]
        texts = [info.fixed(value) for info, value in zip(infos, overall, strict=True)]
        rows.append([result.name, *texts])
    header = [f"{info.name} ({info.unit})" if info.unit else info.name for info in infos]
    return [
        f"Other metrics, overall, {_how(report, 'pooled')}:",
        table(["run", *header], rows),
    ]


def _comparison(report: Report, comparison: Comparison) -> list[str]:
    if not comparison.pairs:
        return ["## Comparison", "All runs are repetitions of one method: nothing to compare."]
    return [
        "## Comparison",
        _bullets([*repetitions(comparison, report.results), *report.sentences]),
        *_pair_tables(report, comparison),
        _bullets(notes_of(comparison)),
    ]


def _pair_tables(report: Report, comparison: Comparison) -> list[str]:
    parts = []
    for info in report.metrics:
        main = info is report.main
        if info.key not in comparison.metrics or (info.key in LEFT_OUT and not main):
            continue
        # all pairs for the main metric; for the others those with the baseline say enough
        pairs = [pair for pair in comparison.pairs if main or pair.first == 0]
        for statistic in STATISTICS:
            rows = []
            for pair in pairs:
                names = [comparison.methods[place].name for place in (pair.second, pair.first)]
                found = [pair.differences[info.key, group, statistic] for group in GROUPS]
                cells = [interval_text(difference, info.digits) for difference in found]
                rows.append([" against ".join(names), *cells])
            how = _how(report, statistic).replace("the non-empty bins", "the bins")
            parts.append(f"{info.title}, {how}: difference ({100 * LEVEL:.0f} % interval)")
            parts.append(table(["method against another", *GROUPS], rows))
    return parts


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {literal(line)}" for line in lines)
