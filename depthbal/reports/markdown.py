"""The report as a markdown text: tables, differences, protocol."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from depthbal.evaluation import GROUPS, metrics_of
from depthbal.reports.comparison import Comparison, Pair, Statistic
from depthbal.reports.intervals import LEVEL
from depthbal.reports.marks import MARKDOWN_MARK
from depthbal.reports.page.numbers import fixed
from depthbal.reports.page.vocabulary import Words, words_of
from depthbal.reports.results import RunResult
from depthbal.reports.sentences import info_of, interval_text

LEFT_OUT = ("mse", "log10", "silog", "delta2", "delta3")
"""Metrics whose differences the text leaves to the page, as others say nearly the same."""


def markdown(results: Sequence[RunResult], comparison: Comparison | None = None) -> str:
    """Return the report of one or several results of one protocol.

    Args:
        results: the first gives bins, label and protocol.
        comparison: of them.
    """
    first = results[0]
    parts = [
        MARKDOWN_MARK,
        f"# {literal(' · '.join(result.name for result in results))}",
        *_main_tables(results),
        *_other_metrics(results),
        *(_comparison(results, comparison) if comparison is not None else ()),
        "## Protocol",
        _bullets(protocol_lines(first)),
        *_gaps(results),
    ]
    mark, *rest = parts
    return "\n\n".join([mark, *map(_without_tags, rest)]) + "\n"


def literal(text: str) -> str:
    """Return text that is shown as it is: names of runs may hold anything.

    Example:
        >>> print(literal("gai*_2 of *mse* in run_1"))
        gai\\*\\_2 of \\*mse\\* in run_1
    """
    special = r"[\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|(?<!\S)#"
    return re.sub(special, r"\\\g<0>", " ".join(text.split()))


def _without_tags(text: str) -> str:
    """Return text that has no html for those who render it."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def headline_text(result: RunResult, words: Words) -> str:
    """Return over what the top-level numbers are averaged."""
    if result.headline == "mask":
        return f"pooled over the {words.items} of the balanced mask (every bin alike)"
    return f"pooled over all {words.items}"


def protocol_lines(result: RunResult) -> list[str]:
    """Return the protocol of a result in words."""
    protocol = result.metrics["protocol"]
    words = words_of(result)
    bins = protocol.get("bins", {})
    lines = [
        f"protocol: {protocol.get('name', 'unnamed')}",
        f"averaging: {protocol.get('averaging', 'not recorded')}",
        f"test data: {len(result.names):,} images, "
        f"{int(result.pooled['all', result.main][:, result.terms.index('count')].sum()):,} "
        f"{words.items} in scored bins",
        f"bins: {len(result.bins)}, {int(result.bins.scored.sum())} of them scored, "
        f"{result.bins.edges[0]:g} to {result.bins.edges[-1]:g} {words.unit}; "
        f"{bins.get('rule', '')}",
        f"shots: {result.bins.shot_rule or 'none'}",
    ]
    mask = protocol.get("mask")
    if mask:
        lines.append(
            f"balanced mask: {mask.get('source')}, seed {mask.get('seed')}, {mask.get('per_bin')} "
            f"pixels from every bin, fingerprint {mask.get('fingerprint')}"
        )
    data = protocol.get("data")
    if isinstance(data, Mapping):
        lines += [f"data, {name}: {data[name]}" for name in ("source", "class") if data.get(name)]
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a markdown table, numbers to the right of the first columns, which are text.

    Example:
        >>> print(table(["run", "few"], [["a|b", "1.0"]]))
        | run | few |
        |---|---:|
        | a\\|b | 1.0 |
    """
    lines = [header, *rows]
    cells = [[literal(cell).replace("|", "\\|") for cell in row] for row in lines]
    text = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|" + "---|" * texts + "---:|" * (len(header) - texts)
    return "\n".join([text[0], rule, *text[1:]])


def _main_tables(results: Sequence[RunResult]) -> list[str]:
    """Return the main metric of every shot: the top-level numbers, and the means over bins."""
    first, words = results[0], words_of(results[0])
    info = info_of(first.main_metric, first, first.metrics["overall"].get(first.main_metric))
    unit = f" in {info.unit}" if info.unit else ""
    headline = headline_text(first, words)
    return [
        f"## {info.name}{unit}",
        f"{info.name}{unit}, {headline}:",
        _shots(results, lambda metrics: metrics, info.digits),
        f"{info.name}{unit}, mean over the non-empty bins of {words.label}, all {words.items}:",
        _shots(results, _per_bin, info.digits),
    ]


def _per_bin(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    block: Mapping[str, Any] = metrics.get("all_pixels", metrics)["per_bin_mean"]
    return block


def _shots(results: Sequence[RunResult], block_of: Callable[[Any], Any], digits: int) -> str:
    several = any(len(result.readouts) > 1 for result in results)
    rows = []
    for result in results:
        block = block_of(result.metrics)
        values = [fixed(block[group].get(result.main_metric), digits) for group in GROUPS]
        rows.append([result.name, *([result.readout] if several else []), *values])
    texts = ["run", "read-out"] if several else ["run"]
    return table([*texts, *GROUPS], rows, len(texts))


def _other_metrics(results: Sequence[RunResult]) -> list[str]:
    first, words = results[0], words_of(results[0])
    names = [name for name in metrics_of(first.terms) if name != first.main_metric]
    if not names:
        return []
    scale = first.metrics["overall"].get(first.main_metric)
    infos = [info_of(name, first, scale) for name in names]
    rows = [
        [result.name, *(fixed(result.metrics["overall"].get(i.key), i.digits) for i in infos)]
        for result in results
    ]
    header = [f"{info.name} ({info.unit})" if info.unit else info.name for info in infos]
    return [
        f"Other metrics, overall, {headline_text(first, words)}:",
        table(["run", *header], rows),
    ]


def _comparison(results: Sequence[RunResult], comparison: Comparison) -> list[str]:
    if not comparison.pairs:
        return ["## Comparison", "All runs are repetitions of one method: nothing to compare."]
    against_first = [pair for pair in comparison.pairs if pair.first == 0]
    return [
        "## Comparison",
        _bullets((*_repetitions(results, comparison), *(p.sentence for p in against_first))),
        *_pair_tables(results[0], comparison),
        _bullets(comparison.notes),
    ]


def _repetitions(results: Sequence[RunResult], comparison: Comparison) -> list[str]:
    """Say which runs a method's one name stands for."""
    return [
        f"{method.name}: mean of {'; '.join(results[run].name for run in method.runs)}."
        for method in comparison.methods
        if len(method.runs) > 1
    ]


def _pair_tables(first: RunResult, comparison: Comparison) -> list[str]:
    words = words_of(first)
    scale = first.metrics["overall"].get(first.main_metric)
    means = f"mean over the bins of {words.label}, all {words.items}"
    sides: dict[Statistic, str] = {"bins": means, "pooled": headline_text(first, words)}
    parts = []
    for metric in comparison.metrics:
        main = metric == comparison.metrics[0]
        if metric in LEFT_OUT and not main:
            continue
        # all pairs for the main metric; for the others those with the baseline say enough
        pairs = [pair for pair in comparison.pairs if main or pair.first == 0]
        info = info_of(metric, first, scale)
        unit = f" in {info.unit}" if info.unit else ""
        for statistic, averaged in sides.items():
            rows = [_pair_row(pair, comparison, metric, statistic, info.digits) for pair in pairs]
            parts += [
                f"{info.name}{unit}, {averaged}: difference ({100 * LEVEL:.0f} % interval)",
                table(["method against another", *GROUPS], rows),
            ]
    return parts


def _pair_row(
    pair: Pair, comparison: Comparison, metric: str, statistic: Statistic, digits: int
) -> list[str]:
    names = [comparison.methods[place].name for place in (pair.second, pair.first)]
    cells = [interval_text(pair.differences[metric, group, statistic], digits) for group in GROUPS]
    return [" against ".join(names), *cells]


def _gaps(results: Sequence[RunResult]) -> list[str]:
    lines = [f"{result.name}: {gap}" for result in results for gap in result.gaps]
    return ["## Missing", _bullets(lines)] if lines else []


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {literal(line)}" for line in lines)
