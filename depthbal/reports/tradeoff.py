"""Many-shot against few-shot error: where every run stands, and which belong on one line."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from depthbal.reports.comparison import Method, TradeoffPoint
from depthbal.reports.methods import common_name
from depthbal.reports.rebinning import metric_values
from depthbal.reports.resampled_numbers import mean_of_known
from depthbal.reports.results import RunResult


def tradeoff_points(
    results: Sequence[RunResult], methods: Sequence[Method]
) -> tuple[TradeoffPoint, ...]:
    """Return one point per run, in the order of the results.

    Runs whose settings differ in sigma and seed only are one family, as are the results of one
    method balanced afterwards with several sigmas.

    Args:
        results: of one protocol.
        methods: what `methods_of` made of them.
    """
    families = _families(results)
    method_of = {i: place for place, method in enumerate(methods) for i in method.runs}
    return tuple(
        TradeoffPoint(
            run=i,
            method=method_of[i],
            family=families[i],
            noise_sigma=result.noise_sigma,
            **_coordinates(result),
        )
        for i, result in enumerate(results)
    )


def _coordinates(result: RunResult) -> dict[str, float | None]:
    metric = result.main_metric
    values = metric_values(result.pooled["all", result.main], result.terms)[metric]
    found: dict[str, float | None] = {}
    for shot in ("many", "few"):
        inside = [i for i, s in enumerate(result.bins.shots) if s == shot and result.bins.scored[i]]
        mean = float(mean_of_known(values[inside])) if inside else float("nan")
        found[shot] = None if mean != mean else mean
        found[f"{shot}_pooled"] = result.metrics[shot].get(metric)
    return found


def _families(results: Sequence[RunResult]) -> list[str]:
    """Return the family of every result: the common name of what belongs to it."""
    keys = []
    for result in results:
        known = result.settings or {"run": str(result.path)}
        keys.append(
            (json.dumps(_without_sigma(known), sort_keys=True, default=str), result.posthoc)
        )
    names = [result.path.name for result in results]
    shown = {
        key: common_name([name for name, other in zip(names, keys, strict=True) if other == key])
        for key in dict.fromkeys(keys)
    }
    return [shown[key] + (", balanced afterwards" if key[1] else "") for key in keys]


def _without_sigma(settings: Mapping[str, Any]) -> Any:
    """Return nested settings without the noise's start value."""
    return {
        name: _without_sigma(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != "init_noise_sigma"
    }
