"""How the numbers were made: protocol, training, versions, data, prior."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from plotly.offline import get_plotlyjs_version

from depthbal.reports.resampling import LEVEL
from depthbal.reports.results import Result
from depthbal.reports.tables import Report
from depthbal.reports.vocabulary import flat, short, value_text

SESSIONS = "earlier_sessions"
"""In run.json of a run that was resumed: what each session before the last was made with."""

TRAINING = ("command", "seed", "device", "threads", "duration_s", "total_duration_s")
"""What of run.json stands in the table of the training."""


class Facts(NamedTuple):
    """A table of facts: its title, the runs' names or one empty name where all agree, its rows."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def facts(report: Report) -> list[Facts]:
    """Return protocol, data, training and versions as tables; empty ones are left out."""
    parts = {
        "Evaluation protocol": _protocol,
        "Bins and shots": _bins,
        "Training data": lambda result: flat(result.record.get("data") or {}),
        "Training": _training,
        "Earlier sessions": _sessions,
        "Versions": _versions,
        "Prior": _prior,
    }
    tables = [
        _table(title, report.results, [rows_of(result) for result in report.results])
        for title, rows_of in parts.items()
    ]
    if report.comparison:
        tables.insert(2, _comparison(report))
    return [table for table in tables if table.rows]


def configs(report: Report) -> list[tuple[str, str]]:
    """Return (names of the runs, config.yaml) for every distinct configuration."""
    found: dict[str, list[str]] = {}
    for result in report.results:
        if result.config:
            found.setdefault(result.config, []).append(result.name)
    return [("; ".join(names), text) for text, names in found.items()]


def _table(title: str, results: Sequence[Result], columns: list[dict[str, str]]) -> Facts:
    names = dict.fromkeys(name for column in columns for name in column)
    found = [(name, [column.get(name, "–") for column in columns]) for name in names]
    # "total duration (s)" of total_duration_s
    rows = [
        (re.sub(r" ([ms])$", r" (\1)", name.replace("_", " ")), values)
        for name, values in found
        if set(values) != {"–"}
    ]
    if all(len(set(values)) == 1 for _, values in rows):
        return Facts(title, [""], [(name, values[:1]) for name, values in rows])
    return Facts(title, [result.name for result in results], rows)


def _protocol(result: Result) -> dict[str, str]:
    kept = {key: value for key, value in result.protocol.items() if key != "bins"}
    return flat(kept | ({"readout": result.readout} if result.scores.main else {}))


def _bins(result: Result) -> dict[str, str]:
    described = result.protocol["bins"]
    rows = {key: described[key] for key in ("rule", "shot_rule") if described[key]}
    rows["edges"] = value_text(described["edges"])
    rows["scored bins"] = str(len(described["scored"]))
    return rows | {f"{shot}-shot bins": str(len(b)) for shot, b in described["shots"].items()}


def _training(result: Result) -> dict[str, str]:
    rows = {key: value_text(result.record[key]) for key in TRAINING if key in result.record}
    rows["run folder"] = str(result.run)
    if result.path != result.run:
        rows["evaluation"] = result.path.name
    if result.noise_sigma is not None:
        rows["sigma"] = f"{result.noise_sigma:.6g} {result.sigma_unit}".rstrip()
    return rows


def _sessions(result: Result) -> dict[str, str]:
    """Return how long each session before a resumed run's last took, and what differed in it."""
    last = flat({key: value for key, value in result.record.items() if key != SESSIONS})
    rows = {}
    for number, session in enumerate(result.record.get(SESSIONS, []), start=1):
        own = flat(session)
        took = f"{own['duration_s']} s" if "duration_s" in own else "cut off before its end"
        rows[f"session {number}"] = took
        changed = [k for k in own if k not in TRAINING[-2:] and own[k] != last.get(k)]
        rows |= {f"session {number}, {key}": own[key] for key in changed}
    return rows


def _versions(result: Result) -> dict[str, str]:
    apart = {*TRAINING, SESSIONS, "data"}
    rows = flat({key: value for key, value in result.record.items() if key not in apart})
    page = {"plotly.js of this page": f"{get_plotlyjs_version()} (MIT licence)"}
    return rows | page if rows else rows


def _prior(result: Result) -> dict[str, str]:
    rows = {}
    if (histogram := result.histogram) is not None:
        rows["training histogram"] = (
            f"{len(histogram.counts)} bins, {short(histogram.edges[0])} to "
            f"{short(histogram.edges[-1])} {result.scores.label.unit}, {histogram.total:,.0f} "
            "labels"
        )
    if (prior := result.prior) is not None:
        size = f", {prior.event_dim}-dimensional" if prior.event_dim else ""
        rows["prior"] = f"mixture of {len(prior.weights)} normals{size}"
        if not prior.event_dim:
            parts: dict[str, Any] = {"weights": prior.weights, "means": prior.means}
            parts["standard deviations"] = prior.variances.sqrt()
            rows |= {k: ", ".join(f"{x:.4g}" for x in v.tolist()) for k, v in parts.items()}
    return rows


def _comparison(report: Report) -> Facts:
    found = report.comparison
    assert found is not None
    times = found.empty.sum(0)
    left_out = int((times > 0).sum())
    rows = {
        "intervals": f"{100 * LEVEL:.0f} %, bootstrap over {found.units.text}",
        "resamples": f"{found.resamples}, seed {found.seed}",
        "bins empty in a resample": f"left out of it; {left_out or 'none'} of the bins"
        + (f", at most {int(times.max()):,} times" if left_out else ""),
        "bands per bin": f"hold in all bins at once with {100 * LEVEL:.0f} %",
    }
    return Facts("Comparison", [""], [(name, [value]) for name, value in rows.items()])
