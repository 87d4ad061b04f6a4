"""An ablation as a picture: the error of every shot over the varied setting."""

from collections.abc import Sequence
from pathlib import Path

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

    Dotted lines are the plain loss; a star is the value that a training found.

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
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _line(axes: Axes, rows: Sequence[Row], group: str, kind: str) -> None:
    """Draw the medians of one kind, with the range over seeds."""
    points = [(row.x, row.median(group), row.values(group)) for row in rows]
    known = [(x, y, values) for x, y, values in points if x is not None and y is not None]
    if not known:
        return
    xs, ys = [x for x, _, _ in known], [y for _, y, _ in known]
    ranges = [
        [y - min(values) for _, y, values in known],
        [max(values) - y for _, y, values in known],
    ]
    style, label = LINES[kind]
    axes.errorbar(
        xs,
        ys,
        yerr=ranges,
        fmt=style,
        color=COLOURS[group],
        markersize=4,
        elinewidth=0.8,
        label=label.format(group),
    )


def _mark(axes: Axes, row: Row, group: str) -> None:
    """Draw a row that has no place on the axis of its own."""
    value = row.median(group)
    if value is None:
        return
    if row.kind == "plain":
        axes.axhline(value, color=COLOURS[group], linestyle=":", linewidth=1)
    sigma = row.sigma()
    if row.kind == "learned" and sigma is not None:
        axes.plot([sigma], [value], "*", color=COLOURS[group], markersize=10)
