"""The figures of the synthetic benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from depthbal.synthetic.benchmark import Cell, run_benchmark, summary
from depthbal.synthetic.methods import METHODS, TABLE_METHODS, Settings
from depthbal.synthetic.problems import (
    LEVELS,
    NOISE_SIGMA,
    SyntheticData,
    draw_data,
    parse_column,
)
from depthbal.synthetic.solver import solve

# Markers set apart what colours alone would not.
STYLES = {
    "vanilla": ("#666666", "o"),
    "reweight": ("#e69f00", "s"),
    "gai": ("#0072b2", "^"),
    "bmc": ("#d55e00", "v"),
    "gai_learned": ("#56b4e9", "<"),
    "bmc_learned": ("#cc79a7", ">"),
}
FIT_COLUMNS = ("normal_high", "exponential_high")
SKEWNESS = {
    "normal": ("standard deviation (smaller: more skewed)", (0.4, 0.5, 0.75, 1, 1.5)),
    "exponential": ("rate (larger: more skewed)", (0.5, 1, 1.5, 2, 2.5)),
    "mvn": ("factor of the covariance (smaller: more skewed)", (0.16, 0.25, 0.5625, 1)),
}
BATCH_SIZES = (16, 64, 256, 1024)
COMPONENTS = (1, 2, 4, 8, 16, 64)
MOST_SEEDS = 6  # dozens of columns are solved

# The columns and settings at which methods are compared, by the value that varies.
Cases = dict[float, tuple[str, Settings]]


def write_figures(cells: Sequence[Cell], seeds: Sequence[int], folder: Path) -> list[Path]:
    """Write all figures and return their paths.

    fits_COLUMN.png and seeds_COLUMN.png: fitted functions with data, oracle and label histogram,
    for one seed and for all; densities.png: of two-dimensional labels; skewness.png: the error
    over it; sigma.png: learned noise scales, where there are any; sizes.png: BMC's batch size and
    GAI's components against the error. All but sigma.png are solved here.

    Args:
        cells: Of the benchmark, for sigma.png.
        seeds: Of the benchmark; the first six are taken.
        folder: Where to; it exists.
    """
    few = list(seeds)[:MOST_SEEDS]
    figures = {}
    for name in FIT_COLUMNS:
        data = draw_data(parse_column(name), few)
        fits = {name: solve(data, method).test_preds for name, method in TABLE_METHODS.items()}
        figures[f"fits_{name}"] = _draw_fits(data, fits, [0])
        figures[f"seeds_{name}"] = _draw_fits(data, fits, range(len(few)))
    figures["densities"] = _draw_densities(seeds[0])
    if any(cell.noise_sigma for cell in cells):
        figures["sigma"] = _draw_sigma(cells)
    figures["skewness"] = _draw_skewness(few)
    figures["sizes"] = _draw_sizes(few)
    paths = {folder / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        figure.savefig(path, dpi=120)
    return list(paths)


def _draw_fits(data: SyntheticData, fits: dict[str, Tensor], shown: Sequence[int]) -> Figure:
    """Return a panel per method: the first seed's labels and histogram, oracle, the seeds' fits."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    one = len(shown) == 1
    counted = data.counted[0]
    inputs, labels = data.inputs[0, counted, 0], data.labels[0, counted, 0]
    for axes, (method, preds) in zip(panels.flat, fits.items(), strict=True):
        axes.scatter(inputs, labels, s=4, color="#bbbbbb", linewidths=0, label="training labels")
        axes.plot(data.test_inputs[0], data.test_labels, "k--", lw=1.2, zorder=3, label="oracle")
        for index in shown:
            line = {"color": STYLES[method][0], "lw": 2.0 if one else 0.8}
            label = None if index else "fit"
            axes.plot(data.test_inputs[index], preds[index], label=label, **line)
        error = data.test_errors(preds)[list(shown)].quantile(0.5)
        what = "test MSE" if one else "median test MSE"
        axes.set_title(f"{METHODS[method].title}: {what} {error:.3g}", fontsize=10)
        inset = axes.inset_axes((0.86, 0.0, 0.14, 1.0), sharey=axes)
        ends = data.column.label_range
        inset.hist(labels, bins=40, range=ends, orientation="horizontal", color="#999999")
        inset.invert_xaxis()
        inset.axis("off")
    low, high = data.column.label_range
    panels[0, 0].set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    panels[0, 0].legend(fontsize="x-small", loc="upper left")
    figure.supxlabel("input x")
    figure.supylabel("label y")
    seeds = "one seed" if one else f"{len(shown)} seeds"
    figure.suptitle(f"{data.column.name}, {seeds}; at the right the training labels' histogram")
    return figure


def _draw_densities(seed: int) -> Figure:
    """Return the two-dimensional training labels, and the range that is tested."""
    figure, panels = _panels(3, "second coordinate")
    for axes, level in zip(panels, LEVELS["mvn"], strict=True):
        data = draw_data(parse_column(f"mvn_{level}"), [seed])
        line = torch.linspace(*data.column.label_range, 121, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
        density = data.column.log_prob(grid).exp()
        image = axes.pcolormesh(line, line, density, cmap="Blues", shading="auto", rasterized=True)
        first, second = data.labels[0].T
        axes.scatter(first, second, s=2, color="#d55e00", linewidths=0, alpha=0.35)
        figure.colorbar(image, ax=axes, shrink=0.9)
        axes.set(title=data.column.name, xlabel="label, first coordinate", aspect="equal")
    figure.suptitle("Density of the training labels and 1,024 draws; test labels fill the square")
    return figure


def _draw_sigma(cells: Sequence[Cell]) -> Figure:
    """Return the learned noise scales of every seed, per column and method."""
    learned = [cell for cell in cells if cell.noise_sigma]
    columns = list(dict.fromkeys(cell.column for cell in learned))
    methods = list(dict.fromkeys(cell.method for cell in learned))
    figure, [axes] = _panels(1, "learned sigma; bar: median, dashed: truth")
    for cell in learned:
        sigmas = torch.tensor(cell.noise_sigma)
        place = columns.index(cell.column) + 0.3 * methods.index(cell.method)
        colour, marker = STYLES.get(cell.method, ("#009e73", "D"))
        label = METHODS[cell.method].title if cell.column == columns[0] else None
        spread = place + torch.linspace(-0.1, 0.1, len(sigmas))
        axes.plot(spread, sigmas, marker, ms=3, alpha=0.6, color=colour, label=label)
        axes.hlines(sigmas.quantile(0.5), place - 0.13, place + 0.13, color="black", lw=1.5)
    axes.axhline(NOISE_SIGMA, color="black", linestyle="--", lw=1)
    axes.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
    axes.set_yscale("log")
    axes.set_yticks([0.7, 1.0, 1.5, 2.0], ["0.7", "1", "1.5", "2"])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    return figure


def _draw_skewness(seeds: Sequence[int]) -> Figure:
    """Return the errors over the skewness, a panel per kind of labels."""
    figure, panels = _panels(3, "test MSE, median and quartiles")
    for axes, (kind, (label, values)) in zip(panels, SKEWNESS.items(), strict=True):
        cases: Cases = {value: (f"{kind}_{value:g}", Settings()) for value in values}
        draw_sweep(axes, ("vanilla", "reweight", "gai", "bmc"), cases, seeds)
        axes.set(title=kind, xlabel=label)
    return figure


def _draw_sizes(seeds: Sequence[int]) -> Figure:
    """Return BMC's error over its batch size beside GAI's over its components."""
    figure, (left, right) = _panels(2, "test MSE, median and quartiles")
    cases: Cases = {n: ("normal_moderate", Settings(batch_size=n)) for n in BATCH_SIZES}
    draw_sweep(left, ("bmc", "bmc_learned"), cases, seeds)
    left.set(title="BMC, normal_moderate", xlabel="labels in a batch")
    cases = {n: ("exponential_high", Settings(n_components=n)) for n in COMPONENTS}
    draw_sweep(right, ("gai", "gai_learned"), cases, seeds)
    right.set(title="GAI, exponential_high", xlabel="components")
    for axes, ticks in ((left, BATCH_SIZES), (right, COMPONENTS)):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, map(str, ticks))
    return figure


def draw_sweep(axes: Axes, methods: Sequence[str], cases: Cases, seeds: Sequence[int]) -> None:
    """Solve methods in all cases; draw medians as lines and quartiles as bands."""
    found: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    for column, settings in cases.values():
        for cell in run_benchmark([column], methods, seeds, settings):
            found[cell.method].append(summary(cell.errors))
    values = list(cases)
    for method, errors in found.items():
        colour, marker = STYLES[method]
        first, median, third = ([of[key] for of in errors] for key in ("q1", "median", "q3"))
        title = METHODS[method].title
        axes.plot(values, median, marker=marker, ms=4, color=colour, label=title)
        axes.fill_between(values, first, third, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def _panels(count: int, label: str) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure and its panels side by side, with one vertical axis."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    panels[0].set_ylabel(label)
    return figure, panels
