"""An ablation as a picture: the error of every shot over the varied setting."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from depthbal.evaluation import GROUPS
from depthbal.files import replacing
from depthbal.training.ablation_study import Row, Study

COLOURS = {"overall": "black", "many": "tab:blue", "medium": "tab:orange", "few": "tab:red"}
LINES = {
    "trained": ("-o", "{}, trained with Balanced MSE"),
    "afterwards": ("--x", "{}, plain loss balanced afterwards"),
}


def draw_study(study: Study, path: Path) -> None:
    """Write the medians over the varied setting as a picture, with bars from lowest to highest.

    Dotted lines, with bands for bars, are the plain loss; a star is the value that a training
    found.

    Args:
        study: What to draw.
        path: Image file to write.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for group in GROUPS:
        for kind in LINES:
            _line(axes, [row for row in study.rows if row.kind == kind], group, kind)
        for row in study.rows:
            _mark(axes, row, group)
    axes.plot([], [], ":", color="grey", label="plain loss")
    if any(row.kind == "learned" for row in study.rows):
        axes.plot([], [], "*", color="grey", markersize=10, label="learned")
    axes.set_xscale("log")
    ticks = sorted({row.x for row in study.rows if row.x is not None})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(study.axis)
    axes.set_ylabel(f"{study.metric}, mean over label bins")
    axes.set_ylim(bottom=0)
    seeds = ", ".join(map(str, study.rows[0].seeds))
    axes.set_title(f"median, lowest and highest of seeds {seeds}", fontsize="small")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _line(axes: Axes, rows: Sequence[Row], group: str, kind: str) -> None:
    """Draw the medians of one kind, with the range over seeds."""
    points = [(row.x, row.values(group)) for row in rows]
    known = {x: values for x, values in points if x is not None and values}
    if known:
        style, label = LINES[kind]
        _medians(axes, known, style, group, markersize=4, label=label.format(group))


def _mark(axes: Axes, row: Row, group: str) -> None:
    """Draw a row that has no place on the axis of its own."""
    values, sigma = row.values(group), row.sigma()
    if not values:
        return
    if row.kind == "plain":
        axes.axhline(statistics.median(values), color=COLOURS[group], linestyle=":", linewidth=1)
        axes.axhspan(min(values), max(values), color=COLOURS[group], alpha=0.1)
    if row.kind == "learned" and sigma is not None:
        _medians(axes, {sigma: values}, "*", group, markersize=10)


def _medians(
    axes: Axes, values: Mapping[float, Sequence[float]], style: str, group: str, **options: Any
) -> None:
    """Draw the median of the values at every place, with a bar from lowest to highest."""
    medians = [statistics.median(seeds) for seeds in values.values()]
    pairs = list(zip(medians, values.values(), strict=True))
    bars = [[y - min(seeds) for y, seeds in pairs], [max(seeds) - y for y, seeds in pairs]]
    options |= {"color": COLOURS[group], "elinewidth": 0.8}
    axes.errorbar(list(values), medians, yerr=bars, fmt=style, **options)
