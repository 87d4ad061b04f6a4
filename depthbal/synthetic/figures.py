"""The figures of the synthetic benchmark."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from depthbal.io import replacing
from depthbal.synthetic.benchmark import Cell, solve
from depthbal.synthetic.columns import LEVELS, NOISE_SIGMA, parse_column
from depthbal.synthetic.data import SyntheticData, draw_data
from depthbal.synthetic.methods import METHODS, find_method
from depthbal.synthetic.studies import (
    SKEWNESS_SWEEPS,
    Curves,
    over_batch_size,
    over_components,
    over_skewness,
)

FITTED = ("vanilla", "reweight", "gai", "bmc", "gai_learned", "bmc_learned")
SWEPT = ("vanilla", "reweight", "gai", "bmc")
# Markers set apart what colours alone would not.
STYLES = {
    "vanilla": ("#666666", "o"),
    "reweight": ("#e69f00", "s"),
    "gai": ("#0072b2", "^"),
    "bmc": ("#d55e00", "v"),
    "gai_learned": ("#56b4e9", "<"),
    "bmc_learned": ("#cc79a7", ">"),
}
FIT_COLUMNS = ("normal_high", "exponential_high", "tan_low")
NETWORK_SEEDS = 2  # at most, of non-linear tasks, which take seconds per seed
STUDY_SEEDS = 6  # at most: studies solve dozens of columns


def write_figures(cells: Sequence[Cell], seeds: Sequence[int], folder: Path) -> list[Path]:
    """Write all figures and return their paths.

    fits_COLUMN.png and seeds_COLUMN.png: fitted functions with data, oracle and label histogram,
    for one seed and for all; densities.png: of two-dimensional labels; skewness.png: the error
    over it; sigma.png: learned noise scales, where there are any; sizes.png: BMC's batch size and
    GAI's components against the error. All but sigma.png are solved exactly here.

    Args:
        cells: Of the benchmark, for sigma.png.
        seeds: Of the benchmark; studies take the first six.
        folder: Where to.
    """
    few = list(seeds)[:STUDY_SEEDS]
    written = []

    def save(figure: Figure, name: str) -> None:
        path = folder / f"{name}.png"
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
        written.append(path)

    for name in FIT_COLUMNS:
        column = parse_column(name)
        data = draw_data(column, few if column.link is None else few[:NETWORK_SEEDS])
        fits = {method: solve(data, find_method(method)).test_preds for method in FITTED}
        save(draw_fits(data, fits, [0]), f"fits_{name}")
        save(draw_fits(data, fits, range(len(data.seeds))), f"seeds_{name}")
    save(draw_densities(seeds[0]), "densities")
    save(
        draw_skewness({kind: over_skewness(kind, SWEPT, few) for kind in SKEWNESS_SWEEPS}),
        "skewness",
    )
    if any(cell.noise_sigma for cell in cells):
        save(draw_sigma(cells), "sigma")
    sizes = over_batch_size("normal_moderate", few), over_components("exponential_high", few)
    save(draw_sizes(*sizes), "sizes")
    return written


def draw_fits(data: SyntheticData, fits: dict[str, Tensor], shown: Sequence[int]) -> Figure:
    """Return one panel per method: training labels, fitted functions, oracle, label histogram.

    Args:
        data: Of a column with labels of one dimension.
        fits: Predictions (S, m, 1) by method.
        shown: Which of the seeds; the data shown are the first one's.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    low, high = data.column.label_range
    first = shown[0]
    counted = data.counted[first]
    inputs, labels = data.inputs[first, counted, 0], data.labels[first, counted, 0]
    for axes, (method, preds) in zip(panels.flat, fits.items(), strict=False):
        axes.scatter(inputs, labels, s=4, color="#bbbbbb", linewidths=0, label="training labels")
        test_inputs, test_labels = data.test_inputs[first, :, 0], data.test_labels[:, 0]
        axes.plot(test_inputs, test_labels, "k--", lw=1.2, zorder=3, label="oracle")
        colour = STYLES[method][0]
        for index in shown:
            line = {"color": colour, "lw": 2.0 if len(shown) == 1 else 0.8}
            label = "fit" if index == first else None
            axes.plot(data.test_inputs[index, :, 0], preds[index, :, 0], label=label, **line)
        errors = data.test_errors(preds)[list(shown)]
        what = "test MSE" if len(shown) == 1 else "median test MSE"
        axes.set_title(f"{METHODS[method].title}: {what} {errors.quantile(0.5):.3g}", fontsize=10)
        _beside(axes, labels, (low, high))
    span = high - low
    panels[0, 0].set_ylim(low - 0.15 * span, high + 0.15 * span)
    ends = torch.cat([data.test_inputs[first, :, 0], inputs])
    margin = 0.05 * float(ends.max() - ends.min())
    panels[0, 0].set_xlim(float(ends.min()) - margin, float(ends.max()) + margin)
    panels[0, 0].legend(fontsize="x-small", loc="upper left")
    figure.supxlabel("input x")
    figure.supylabel("label y")
    seeds = "one seed" if len(shown) == 1 else f"{len(shown)} seeds"
    figure.suptitle(f"{data.column.name}, {seeds}; at the right the training labels' histogram")
    return figure


def _beside(axes: Axes, labels: Tensor, label_range: tuple[float, float]) -> None:
    """Draw the histogram of the labels along the right edge."""
    inset = axes.inset_axes((0.86, 0.0, 0.14, 1.0), sharey=axes)
    inset.hist(labels, bins=40, range=label_range, orientation="horizontal", color="#999999")
    inset.invert_xaxis()
    inset.axis("off")


def draw_densities(seed: int) -> Figure:
    """Return the two-dimensional training labels, and the range that is tested."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, level in zip(panels, LEVELS, strict=True):
        data = draw_data(parse_column(f"mvn_{level}"), [seed])
        ends = data.column.label_range
        line = torch.linspace(*ends, 121, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
        density = data.column.labels.log_prob(grid).exp()
        image = axes.pcolormesh(line, line, density, cmap="Blues", shading="auto", rasterized=True)
        axes.scatter(*data.labels[0].T, s=2, color="#d55e00", linewidths=0, alpha=0.35)
        figure.colorbar(image, ax=axes, shrink=0.9)
        axes.set_title(f"mvn_{level}", fontsize=10)
        axes.set_aspect("equal")
        axes.set_xlabel("label, first coordinate")
    panels[0].set_ylabel("second coordinate")
    figure.suptitle("Density of the training labels and 1,024 draws; test labels fill the square")
    return figure


def draw_skewness(curves: dict[str, Curves]) -> Figure:
    """Return the errors over the skewness, a panel per kind of labels."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True)
    units = {
        "normal": "standard deviation (smaller: more skewed)",
        "exponential": "rate (larger: more skewed)",
        "mvn": "factor of the covariance (smaller: more skewed)",
    }
    for axes, (kind, of_kind) in zip(panels, curves.items(), strict=True):
        draw_curves(axes, of_kind)
        axes.set_xlabel(units[kind])
        axes.set_title(kind, fontsize=10)
    panels[0].set_ylabel("test MSE, median and quartiles")
    panels[0].legend(fontsize="x-small")
    return figure


def draw_curves(axes: Axes, curves: Curves) -> None:
    """Draw medians as lines and quartiles as bands, on a logarithmic axis."""
    for method, of_method in curves.items():
        colour, marker = STYLES[method]
        values = list(of_method)
        first, median, third = zip(*of_method.values(), strict=True)
        axes.plot(values, median, marker=marker, ms=4, color=colour, label=METHODS[method].title)
        axes.fill_between(values, first, third, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def draw_sigma(cells: Sequence[Cell]) -> Figure:
    """Return the learned noise scales of every seed, per column and method."""
    learned = [cell for cell in cells if cell.noise_sigma]
    columns = list(dict.fromkeys(cell.column for cell in learned))
    methods = list(dict.fromkeys(cell.method for cell in learned))
    figure = Figure(figsize=(max(5.0, 1.1 * len(columns) + 1.5), 4), layout="constrained")
    axes = figure.subplots()
    for cell in learned:
        sigmas = torch.tensor(cell.noise_sigma)
        shift = 0.3 * (methods.index(cell.method) - (len(methods) - 1) / 2)
        place = columns.index(cell.column) + shift
        colour, marker = STYLES.get(cell.method, ("#009e73", "D"))
        spread = 0.1 * torch.linspace(-1, 1, len(sigmas)) if len(sigmas) > 1 else torch.zeros(1)
        label = METHODS[cell.method].title if cell.column == columns[0] else None
        axes.plot(place + spread, sigmas, marker, ms=3, alpha=0.6, color=colour, label=label)
        axes.hlines(sigmas.quantile(0.5), place - 0.13, place + 0.13, color="black", lw=1.5)
    axes.axhline(NOISE_SIGMA, color="black", linestyle="--", lw=1)
    axes.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
    axes.set_yscale("log")
    ticks = [0.7, 1.0, 1.5, 2.0]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("learned sigma; bar: median, dashed: truth")
    axes.legend(fontsize="small")
    return figure


def draw_sizes(batch_sizes: Curves, components: Curves) -> Figure:
    """Return BMC's error over its batch size beside GAI's over its components."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    captions = (
        ("BMC, normal_moderate", "labels in a batch"),
        ("GAI, exponential_high", "components"),
    )
    for axes, curves, (title, unit) in zip(
        panels, (batch_sizes, components), captions, strict=True
    ):
        draw_curves(axes, curves)
        axes.set_xscale("log", base=2)
        ticks = list(next(iter(curves.values())))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(unit)
        axes.legend(fontsize="small")
    panels[0].set_ylabel("test MSE, median and quartiles")
    return figure
