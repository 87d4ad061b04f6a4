"""How the numbers were made: protocol, training, versions, data, prior."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from depthbal.reports.page.assets import plotly_version
from depthbal.reports.page.numbers import short
from depthbal.reports.page.view import View
from depthbal.reports.results import RunResult

LONG = 8
"""Lists with more entries are shown by their number and ends."""

SESSIONS = "earlier_sessions"
"""In versions.json of a run that was resumed: what each session before the last was made with."""

DURATIONS = ("duration_s", "total_duration_s")


@dataclass(frozen=True)
class Facts:
    """A table of facts, one column per run; one column where all runs agree.

    Attributes:
        title: of the table.
        columns: names of the runs, or one empty name.
        rows: (what, a value per column).
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def facts(view: View) -> list[Facts]:
    """Return protocol, data, training and versions as tables; empty ones are left out."""
    results = view.results
    protocols = [flat(_without_bins(result)) for result in results]
    data = [flat(result.versions.get("data") or {}) for result in results]
    tables = [
        _table("Evaluation protocol", results, protocols),
        _table("Bins and shots", results, [_bins(result) for result in results]),
        _table("Training data", results, data),
        _table("Training", results, [_training(result) for result in results]),
        _table("Earlier sessions", results, [_sessions(result) for result in results]),
        _table("Versions", results, [_versions(result) for result in results]),
        _table("Prior", results, [_prior(result) for result in results]),
    ]
    if view.comparison is not None:
        tables.insert(2, _comparison(view))
    return [table for table in tables if table.rows]


def flat(content: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """Return nested settings as one level, values as text; long lists by their length and ends.

    Example:
        >>> flat({"mask": {"seed": 0}, "edges": list(range(101)), "size": [72, 96], "none": None})
        {'mask.seed': '0', 'edges': '101 values, 0 to 100', 'size': '72, 96', 'none': '–'}
    """
    found: dict[str, str] = {}
    for key, value in content.items():
        name = f"{start}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[name] = _text(value)
    return found


def configs(view: View) -> list[tuple[str, str]]:
    """Return (names of the runs, config.yaml) for every distinct configuration."""
    found: dict[str, list[str]] = {}
    for result in view.results:
        if result.config:
            found.setdefault(result.config, []).append(result.name)
    return [("; ".join(names), text) for text, names in found.items()]


def gaps(view: View) -> list[str]:
    """Return what is missing, each with its run where there are several."""
    several = len(view.results) > 1
    return [
        f"{result.name}: {gap}" if several else gap
        for result in view.results
        for gap in result.gaps
    ]


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return short(value)
    if isinstance(value, list):
        if len(value) > LONG:
            return f"{len(value)} values, {_text(value[0])} to {_text(value[-1])}"
        return ", ".join(_text(part) for part in value) or "none"
    return str(value)


def _table(title: str, results: Sequence[RunResult], columns: list[dict[str, str]]) -> Facts:
    names = dict.fromkeys(name for column in columns for name in column)
    found = [(name, [column.get(name, "–") for column in columns]) for name in names]
    rows = [(_title(name), values) for name, values in found if set(values) != {"–"}]
    if all(len(set(values)) == 1 for _, values in rows):
        return Facts(title, [""], [(name, values[:1]) for name, values in rows])
    return Facts(title, [result.name for result in results], rows)


def _title(key: str) -> str:
    """Return a key in words: "total duration (s)" of total_duration_s."""
    return re.sub(r" ([ms])$", r" (\1)", key.replace("_", " "))


def _without_bins(result: RunResult) -> dict[str, Any]:
    kept = {key: value for key, value in result.metrics["protocol"].items() if key != "bins"}
    return kept | ({"readout": result.readout} if result.main else {})


def _bins(result: RunResult) -> dict[str, str]:
    described = result.metrics["protocol"].get("bins") or result.bins.describe()
    rows = {key: _text(described[key]) for key in ("rule", "shot_rule") if described.get(key)}
    rows["edges"] = _text(described["edges"])
    rows["scored bins"] = str(len(described["scored"]))
    shots = described.get("shots") or {}
    return rows | {f"{shot}-shot bins": str(len(members)) for shot, members in shots.items()}


def _training(result: RunResult) -> dict[str, str]:
    wanted = ("command", "seed", "device", "threads", *DURATIONS)
    rows = {key: _text(result.versions[key]) for key in wanted if key in result.versions}
    rows["run folder"] = str(result.path)
    rows["metrics file"] = result.file.name
    if result.noise_sigma is not None:
        rows["sigma"] = f"{result.noise_sigma:.6g} {result.sigma_unit}".rstrip()
    return rows


def _sessions(result: RunResult) -> dict[str, str]:
    """Return how long each session before a resumed run's last took, and what differed in it."""
    last = flat(_without_sessions(result))
    rows = {}
    for number, session in enumerate(result.versions.get(SESSIONS, []), start=1):
        own = flat(session)
        rows[f"session {number}"] = (
            f"{own['duration_s']} s" if "duration_s" in own else "cut off before its end"
        )
        changed = [key for key in own if key not in DURATIONS and own[key] != last.get(key)]
        rows |= {f"session {number}, {key}": own[key] for key in changed}
    return rows


def _without_sessions(result: RunResult) -> dict[str, Any]:
    return {key: value for key, value in result.versions.items() if key != SESSIONS}


def _versions(result: RunResult) -> dict[str, str]:
    apart = {"command", "seed", "device", "threads", *DURATIONS, "data"}
    found = _without_sessions(result)
    rows = flat({key: value for key, value in found.items() if key not in apart})
    return rows | {"plotly.js of this page": f"{plotly_version()} (MIT licence)"} if rows else rows


def _prior(result: RunResult) -> dict[str, str]:
    rows = {}
    if result.histogram is not None:
        histogram = result.histogram
        rows["training histogram"] = (
            f"{len(histogram.counts)} bins, {short(histogram.edges[0])} to "
            f"{short(histogram.edges[-1])} {result.label.unit}, {histogram.total:,.0f} labels"
        )
    if result.prior is not None:
        prior = result.prior
        size = f", {prior.event_dim}-dimensional" if prior.event_dim else ""
        rows["prior"] = f"mixture of {len(prior.weights)} normals{size}"
        if not prior.event_dim:
            rows["weights"] = _numbers(prior.weights.tolist())
            rows["means"] = _numbers(prior.means.tolist())
            rows["standard deviations"] = _numbers(prior.variances.sqrt().tolist())
    return rows


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _comparison(view: View) -> Facts:
    found = view.comparison
    assert found is not None
    left_out = int((found.empty > 0).sum())
    rows = {
        "intervals": f"{100 * found.level:.0f} %, bootstrap over {found.units}",
        "resamples": f"{found.resamples}, seed {found.seed}",
        "bins empty in a resample": f"left out of it; {left_out or 'none'} of the bins"
        + (f", at most {int(found.empty.max()):,} times" if left_out else ""),
        "bands per bin": f"hold in all bins at once with {100 * found.level:.0f} %",
    }
    return Facts("Comparison", [""], [(name, [value]) for name, value in rows.items()])
