"""The same sums, grouped by other shots."""

from dataclasses import replace
from typing import Any

from depthbal.evaluation import GROUPS, summarise
from depthbal.evaluation.calibration import calibration
from depthbal.reports.results import RunResult

PARTS = (*GROUPS, "bins", "per_image_mean", "per_bin_mean")


def with_shots_of(first: RunResult, other: RunResult) -> RunResult:
    """Return a result with every number computed again for the shots of another one.

    Args:
        first: whose bins have the same edges.
        other: is returned as it is where its shots are the same.
    """
    if other.bins.shots == first.bins.shots:
        return other
    metrics = dict(other.metrics)
    headline = _summary(first, other, other.headline, other.main)
    metrics |= {part: headline[part] for part in PARTS}
    if "all_pixels" in metrics:
        metrics["all_pixels"] = _summary(first, other, "all", other.main)
    if "readout" in metrics:
        metrics["readout"] = {
            readout: _readout(first, other, readout) for readout in other.metrics["readout"]
        }
    if other.coverage:
        found = {name: calibration(counts, first.bins) for name, counts in other.coverage.items()}
        metrics["calibration"] = {**metrics["calibration"], **found}
    return replace(other, metrics=metrics, bins=first.bins)


def _summary(first: RunResult, other: RunResult, subset: str, readout: str) -> dict[str, Any]:
    return summarise(other.sums[subset, readout], first.bins, other.terms)


def _readout(first: RunResult, other: RunResult, readout: str) -> dict[str, Any]:
    block = _summary(first, other, other.headline, readout)
    if other.headline != "all":
        block["all_pixels"] = _summary(first, other, "all", readout)
    return block
