"""How often the truth lies in the interval that sigma promises."""

from collections.abc import Sequence
from typing import Any

from depthbal.evaluation.scores import GROUPS
from depthbal.reports.page.numbers import rounded
from depthbal.reports.rebinning import Binning
from depthbal.reports.results import RunResult


def calibration_data(
    results: Sequence[RunResult], binnings: Sequence[Binning], subset: str
) -> dict[str, Any] | None:
    """Return level, interval, coverage per group and per bin of every run, or None.

    Args:
        results: the runs; one without coverage has None.
        binnings: of the figures.
        subset: of the coverage, "all" or "mask".
    """
    described = [result.metrics.get("calibration") for result in results]
    first = next((found for found in described if found), None)
    if first is None:
        return None
    return {
        "level": first["level"],
        "interval": first.get("interval", ""),
        "subset": subset,
        "groups": [_groups(found, subset) for found in described],
        "bins": [[_bins(result, binning, subset) for result in results] for binning in binnings],
    }


def _groups(described: dict[str, Any] | None, subset: str) -> dict[str, Any] | None:
    if not described or not described.get(subset):
        return None
    rows = described[subset]
    return {
        group: {"coverage": rounded(rows[group]["coverage"]), "count": rows[group]["count"]}
        for group in GROUPS
        if group in rows and rows[group]["coverage"] is not None
    }


def _bins(result: RunResult, binning: Binning, subset: str) -> list[Any] | None:
    coverage = result.coverage.get(subset)
    if coverage is None:
        return None
    covered, counted = (binning.members @ coverage).T
    return [rounded(float(c / n)) if n > 0 else None for c, n in zip(covered, counted, strict=True)]
