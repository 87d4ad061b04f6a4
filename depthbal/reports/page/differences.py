"""A comparison as data of figures."""

from typing import Any

from depthbal.reports.comparison import Comparison, Pair
from depthbal.reports.page.numbers import jsonable, rounded


def method_data(comparison: Comparison) -> list[dict[str, Any]]:
    """Return name and runs of every method."""
    return [
        {"name": method.name, "runs": list(method.runs), "seeds": list(method.seeds)}
        for method in comparison.methods
    ]


def band_data(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Return {"metric/binning": one band per method other than the first, against the first}."""
    names = [binning.name for binning in comparison.binnings]
    data: dict[str, list[dict[str, Any]]] = {}
    for pair in against_first(comparison):
        for (metric, binning), band in pair.bins.items():
            key = f"{metric}/{names.index(binning)}"
            data.setdefault(key, []).append(
                {
                    "method": pair.second,
                    "estimate": jsonable(band.estimate),
                    "low": jsonable(band.low),
                    "high": jsonable(band.high),
                }
            )
    return data


def against_first(comparison: Comparison) -> list[Pair]:
    """Return the pairs of the first method with each other one."""
    return [pair for pair in comparison.pairs if pair.first == 0]


def tradeoff_data(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the points that have both coordinates."""
    return [
        {
            "run": point.run,
            "family": point.family,
            "sigma": rounded(point.noise_sigma),
            "many": rounded(point.many),
            "few": rounded(point.few),
        }
        for point in comparison.tradeoff
        if point.many is not None and point.few is not None
    ]
