"""How the numbers were made: protocol, training, versions, data, prior."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from depthbal.reports.results import Result
from depthbal.reports.vocabulary import flat, short, value_text

SESSIONS = "earlier_sessions"
"""In run.json of a run that was resumed: what each session before the last was made with."""

DURATIONS = ("duration_s", "total_duration_s")
TRAINING = ("command", "seed", "device", "threads", *DURATIONS)
"""What of run.json stands in the table of the training."""


def facts(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return tables {"title", "columns", "rows"}: protocol, data, training, versions, prior.

    Rows are (name, a value per run), or one value where all runs agree in everything.
    """
    parts: dict[str, Callable[[Result], dict[str, str]]] = {
        "Evaluation protocol": _protocol,
        "Bins and shots": _bins,
        "Training data": lambda result: flat(result.record.get("data") or {}),
        "Training": _training,
        "Earlier sessions": _sessions,
        "Versions": _versions,
        "Prior": _prior,
    }
    tables = []
    for title, rows_of in parts.items():
        columns, names = [rows_of(result) for result in results], [r.name for r in results]
        rows = []
        for key in dict.fromkeys(key for column in columns for key in column):
            values = [column.get(key, "–") for column in columns]
            if set(values) != {"–"}:
                # "total duration (s)" of total_duration_s
                word = re.sub(r"_([ms])$", r" (\1)", key).replace("_", " ")
                rows.append((word, values))
        if all(len(set(values)) == 1 for _, values in rows):
            names, rows = [""], [(name, values[:1]) for name, values in rows]
        if rows:
            tables.append({"title": title, "columns": names, "rows": rows})
    return tables


def _protocol(result: Result) -> dict[str, str]:
    kept = {key: value for key, value in result.metrics["protocol"].items() if key != "bins"}
    return flat(kept | ({"readout": result.readout} if result.scores.main else {}))


def _bins(result: Result) -> dict[str, str]:
    found = result.bins.describe()
    shown = {key: found[key] for key in ("rule", "shot_rule", "edges") if found[key]}
    counts = {f"{shot}-shot bins": len(numbers) for shot, numbers in found["shots"].items()}
    return flat({**shown, "scored bins": len(found["scored"]), **counts})


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
        changed = [key for key in own if key not in DURATIONS and own[key] != last.get(key)]
        rows |= {f"session {number}, {key}": own[key] for key in changed}
    return rows


def _versions(result: Result) -> dict[str, str]:
    apart = {*TRAINING, SESSIONS, "data"}
    return flat({key: value for key, value in result.record.items() if key not in apart})


def _prior(result: Result) -> dict[str, str]:
    rows = {}
    if (histogram := result.histogram) is not None:
        ends = f"{short(histogram.edges[0])} to {short(histogram.edges[-1])}"
        rows["training histogram"] = (
            f"{len(histogram.counts)} bins, {ends} {result.scores.label.unit}, "
            f"{histogram.total:,.0f} labels"
        )
    if (prior := result.prior) is not None:
        size = f", {prior.event_dim}-dimensional" if prior.event_dim else ""
        rows["prior"] = f"mixture of {len(prior.weights)} normals{size}"
        if not prior.event_dim:
            parts = {"weights": prior.weights, "means": prior.means}
            parts["standard deviations"] = prior.variances.sqrt()
            rows |= {k: ", ".join(f"{x:.4g}" for x in v.tolist()) for k, v in parts.items()}
    return rows
