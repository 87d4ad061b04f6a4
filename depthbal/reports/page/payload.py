"""All numbers that the page's figures show, computed here and only drawn there."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from depthbal.reports.comparison import Comparison, Statistic
from depthbal.reports.page.bin_numbers import bin_shots, bin_tables
from depthbal.reports.page.calibration import calibration_data
from depthbal.reports.page.differences import band_data, method_data, tradeoff_data
from depthbal.reports.page.distributions import (
    joint_tables,
    priors,
    training_histogram,
    training_shares,
)
from depthbal.reports.page.numbers import jsonable
from depthbal.reports.page.training_lines import (
    changing,
    learning_curves,
    sigma_over_label,
    sigma_over_training,
)
from depthbal.reports.page.view import View, readout_name, statistic_name
from depthbal.reports.rebinning import MIN_IMAGES, Binning, supporting_images
from depthbal.reports.results import FloatArray, RunResult

STATISTICS: tuple[Statistic, ...] = ("bins", "pooled")


def payload(view: View) -> dict[str, Any]:
    """Return the page's data, JSON-able; parts without data are None or empty.

    Args:
        view: of the results.
    """
    first = view.results[0]
    scored = np.flatnonzero(first.bins.scored)
    low, high = first.bins.edges[scored[0]], first.bins.edges[scored[-1] + 1]
    everywhere = "all" if "all" in view.subsets else view.subsets[0]
    several = len(view.readouts) > 1
    return {
        "label": {**asdict(view.words), "axis": view.words.axis, "low": low, "high": high},
        "weakBelow": MIN_IMAGES,
        "runs": _runs(view),
        "metrics": [asdict(info) for info in view.metrics],
        "statistics": {key: statistic_name(view, key) for key in STATISTICS},
        "subsets": [{"key": key, "name": view.words.subset(key)} for key in view.subsets],
        "readouts": [{"key": key, "name": readout_name(view, key)} for key in view.readouts]
        if several
        else [],
        "binnings": _binnings(view),
        "shotBands": _shot_bands(first),
        "defaults": {"subset": everywhere, "bin": _worst_bin(view, everywhere)},
        "bins": bin_tables(view.results, view.binnings, [info.key for info in view.metrics]),
        "training": training_histogram(first, first.bins.edges),
        "priors": priors(view.results, float(low), float(high)),
        "joint": joint_tables(view.results, everywhere, view.readouts),
        "curves": learning_curves(view.results),
        "sigmaTraining": changing(sigma_over_training(view.results)),
        "sigmaUnit": first.sigma_unit,
        "sigmaLabel": changing(sigma_over_label(view.results)),
        "calibration": calibration_data(view.results, view.binnings, everywhere),
        **_comparison(view.comparison),
    }


def _runs(view: View) -> list[dict[str, Any]]:
    return [
        {"name": result.name, "main": result.main, **asdict(style)}
        for result, style in zip(view.results, view.styles, strict=True)
    ]


def _binnings(view: View) -> list[dict[str, Any]]:
    first = view.results[0]
    column = first.terms.index("count")
    counts = {subset: first.sums[subset, first.main][..., column] for subset in first.subsets}
    return [_binning(first, binning, counts) for binning in view.binnings]


def _binning(
    first: RunResult, binning: Binning, counts: Mapping[str, FloatArray]
) -> dict[str, Any]:
    widths = binning.high - binning.low
    return {
        "name": binning.name,
        "low": jsonable(binning.low),
        "high": jsonable(binning.high),
        # a constant ratio of neighbouring widths is a logarithmic axis
        "log": bool(len(widths) > 2 and widths.max() > 2.5 * widths.min() and binning.low[0] > 0),
        "images": {
            subset: supporting_images(pixels, binning.members).tolist()
            for subset, pixels in counts.items()
        },
        "shots": bin_shots(first, binning),
        "training": training_shares(first.histogram, binning.low, binning.high),
    }


def _shot_bands(result: RunResult) -> list[dict[str, Any]]:
    """Return neighbouring bins of one shot as one band: {"low", "high", "shot"}."""
    bands: list[dict[str, Any]] = []
    for number, shot in enumerate(result.bins.shots):
        low, high = (round(float(edge), 9) for edge in result.bins.edges[number : number + 2])
        if not shot or not result.bins.scored[number]:
            continue
        if bands and bands[-1]["shot"] == shot and bands[-1]["high"] == low:
            bands[-1]["high"] = high
        else:
            bands.append({"low": low, "high": high, "shot": shot})
    return bands


def _worst_bin(view: View, subset: str) -> int:
    """Return the bin of the first binning where the first run errs most, among supported ones."""
    first, binning, info = view.results[0], view.binnings[0], view.main
    table = bin_tables([first], [binning], [info.key])[f"0/{subset}/{first.main}"][0] or {}
    values = np.array([np.nan if v is None else v for v in table.get(info.key, [])], dtype=float)
    values[binning.thin] = np.nan
    if not np.isfinite(values).any():
        return 0
    return int(np.nanargmin(values) if info.better == "higher" else np.nanargmax(values))


def _comparison(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {"methods": [], "bands": {}, "tradeoff": [], "level": None, "units": ""}
    return {
        "methods": method_data(comparison),
        "bands": band_data(comparison),
        "tradeoff": tradeoff_data(comparison),
        "level": comparison.level,
        "units": comparison.units,
    }
