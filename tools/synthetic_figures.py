"""The figures of the synthetic benchmark."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from depthbal.synthetic import (
    METHODS,
    TABLE_METHODS,
    Cell,
    Settings,
    draw_data,
    parse_column,
    run_benchmark,
    solve,
    summary,
)
from depthbal.synthetic.problems import LEVELS, NOISE_SIGMA, SyntheticData

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
MOST_SEEDS = 6  # of the figures that are solved here, dozens of columns

# Panels of the test error over a quantity: title, axis, methods, and what is solved by its values.
Sweep = tuple[str, str, tuple[str, ...], dict[float, tuple[str, Settings]]]


def _over_skewness(kind: str, label: str, *values: float) -> Sweep:
    cases = {value: (f"{kind}_{value:g}", Settings()) for value in values}
    return kind, label, ("vanilla", "reweight", "gai", "bmc"), cases


def _over_settings(column: str, label: str, method: str, field: str, *values: int) -> Sweep:
    cases = {float(value): (column, Settings(**{field: value})) for value in values}
    return column, label, (method, f"{method}_learned"), cases


SWEEPS = (
    _over_skewness("normal", "standard deviation", 0.4, 0.5, 0.75, 1, 1.5),
    _over_skewness("exponential", "rate", 0.5, 1, 1.5, 2, 2.5),
    _over_skewness("mvn", "factor of the covariance", 0.16, 0.25, 0.5625, 1),
    _over_settings("normal_moderate", "labels in a batch", "bmc", "batch_size", 16, 64, 256, 1024),
    _over_settings("exponential_high", "components", "gai", "n_components", 1, 2, 4, 8, 16, 64),
)


def write_figures(cells: Sequence[Cell], seeds: Sequence[int], folder: Path) -> None:
    """Write all figures.

    fits_COLUMN.png and seeds_COLUMN.png: fitted functions with data, oracle and label histogram,
    for one seed and for several; densities.png: of two-dimensional labels; sweeps.png: the error
    over the skewness, BMC's batch size and GAI's components; sigma.png: learned noise scales, where
    the cells have any. All but sigma.png are solved here.
    """
    few = list(seeds)[:MOST_SEEDS]
    figures = {"densities": _draw_densities(seeds[0]), "sweeps": draw_sweeps(few)}
    for column in FIT_COLUMNS:
        data = draw_data(parse_column(column), few)
        fits = {name: solve(data, method).test_preds for name, method in TABLE_METHODS.items()}
        figures[f"fits_{column}"] = _draw_fits(data, fits, [0])
        figures[f"seeds_{column}"] = _draw_fits(data, fits, range(len(few)))
    if any(cell.noise_sigma for cell in cells):
        figures["sigma"] = draw_sigma(cells)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


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
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, level in zip(panels, LEVELS["mvn"], strict=True):
        data = draw_data(parse_column(f"mvn_{level}"), [seed])
        line = torch.linspace(*data.column.label_range, 121, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
        density = data.column.log_prob(grid).exp()
        image = axes.pcolormesh(line, line, density, cmap="Blues", shading="auto", rasterized=True)
        first, second = data.labels[0].T
        axes.scatter(first, second, s=2, color="#d55e00", linewidths=0, alpha=0.35)
        figure.colorbar(image, ax=axes, shrink=0.9)
        axes.set(title=data.column.name, aspect="equal")
    figure.supxlabel("label, first coordinate")
    figure.supylabel("second coordinate")
    figure.suptitle("Density of the training labels and 1,024 draws; test labels fill the square")
    return figure


def draw_sigma(cells: Sequence[Cell]) -> Figure:
    """Return the learned noise scales over the seeds, per column and method."""
    learned = [cell for cell in cells if cell.noise_sigma]
    figure = Figure(figsize=(3 + 0.5 * len(learned), 4.5), layout="constrained")
    axes = figure.subplots()
    names = [f"{cell.column}, {METHODS[cell.method].title}" for cell in learned]
    axes.boxplot([cell.noise_sigma for cell in learned], whis=(0, 100), tick_labels=names)
    axes.axhline(NOISE_SIGMA, color="black", linestyle="--", lw=1)
    axes.tick_params(axis="x", rotation=90)
    axes.set_ylabel("learned sigma; dashed: truth")
    return figure


def draw_sweeps(seeds: Sequence[int], sweeps: Sequence[Sweep] = SWEEPS) -> Figure:
    """Return medians of the test error as lines and quartiles as bands, a panel per sweep."""
    figure = Figure(figsize=(1 + 3.2 * len(sweeps), 3.8), layout="constrained")
    panels = figure.subplots(1, len(sweeps), squeeze=False)[0]
    for axes, (title, label, methods, cases) in zip(panels, sweeps, strict=True):
        solved = [run_benchmark([name], methods, seeds, its) for name, its in cases.values()]
        for method, cells in zip(methods, zip(*solved, strict=True), strict=True):
            errors = [summary(cell.errors) for cell in cells]
            first, median, third = ([of[key] for of in errors] for key in ("q1", "median", "q3"))
            colour, marker = STYLES[method]
            name = METHODS[method].title
            axes.plot([*cases], median, marker=marker, ms=4, color=colour, label=name)
            axes.fill_between([*cases], first, third, color=colour, alpha=0.2, linewidth=0)
        axes.set(title=title, xlabel=label, yscale="log")
        axes.set_xscale("log", base=2)
        axes.set_xticks([*cases], [f"{value:g}" for value in cases])
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    figure.supylabel("test MSE, median and quartiles")
    return figure
