"""Every metric in every bin, for every way of looking at it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthbal.reports.page.numbers import jsonable
from depthbal.reports.rebinning import Binning, metric_values
from depthbal.reports.results import FloatArray, RunResult


def bin_table(pooled: FloatArray, binning: Binning, terms: Sequence[str]) -> dict[str, FloatArray]:
    """Return {metric: (coarse,)} and "count", from sums pooled over the images (bins, terms)."""
    sums = binning.members @ pooled
    return {"count": sums[:, list(terms).index("count")], **metric_values(sums, terms)}


def bin_tables(
    results: Sequence[RunResult], binnings: Sequence[Binning], wanted: Sequence[str]
) -> dict[str, list[dict[str, Any] | None]]:
    """Return {"binning/subset/read-out": one table per run, None where it has no such numbers}.

    Binnings are numbered.

    Args:
        results: the runs.
        binnings: of the figures.
        wanted: metrics to show.
    """
    keys = dict.fromkeys(
        (subset, readout)
        for result in results
        for subset in result.subsets
        for readout in result.readouts
    )
    return {
        f"{number}/{subset}/{readout}": [
            _table(result, binning, subset, readout, wanted) for result in results
        ]
        for number, binning in enumerate(binnings)
        for subset, readout in keys
    }


def _table(
    result: RunResult, binning: Binning, subset: str, readout: str, wanted: Sequence[str]
) -> dict[str, Any] | None:
    pooled = result.pooled.get((subset, readout))
    if pooled is None:
        return None
    table = bin_table(pooled, binning, result.terms)
    return {name: jsonable(table[name]) for name in ("count", *wanted) if name in table}


def bin_shots(result: RunResult, binning: Binning) -> list[str]:
    """Return the shot of every bin of a figure: its members', "mixed" where they differ."""
    shots = np.array([shot or "" for shot in result.bins.shots])
    found = []
    for row in binning.members:
        names = set(shots[row > 0].tolist())
        found.append(names.pop() if len(names) == 1 else "mixed")
    return found
