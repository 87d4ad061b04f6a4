"""The figure of the training labels' density: counts per bin, by shot, with a mixture over them."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from depthbal.errors import ConfigError
from depthbal.evaluation import SHOTS, Label, LabelBins
from depthbal.io import replacing
from depthbal.priors import GaussianMixture, Histogram

PICTURES = (".png", ".svg", ".pdf")
COLOURS = {"many": "#0072b2", "medium": "#56b4e9", "few": "#d55e00"}


def density_figure(
    histogram: Histogram,
    label: Label,
    bins: LabelBins | None = None,
    mixture: GaussianMixture | None = None,
    counted: str = "training images per bin",
    logarithmic: bool = False,
) -> Figure:
    """Return the number of training labels per bin, coloured by shot, and a mixture over it.

    Args:
        histogram: Of the training labels.
        label: Name and unit.
        bins: Its bins, with their shots; None draws all bars alike.
        mixture: Fitted to it; drawn as the number of labels per bin that it stands for.
        counted: What the bars' heights are.
        logarithmic: Whether they stand on a logarithmic axis.

    Source: Ren et al., CVPR 2022 (supplement, Fig. 2 and 3).
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    bars = histogram.centers, histogram.counts, histogram.widths
    if bins is None:
        axes.bar(*bars, color=COLOURS["many"])
    else:
        shots = np.array(bins.shots)[bins.index(torch.from_numpy(histogram.centers)).numpy()]
        for shot in SHOTS:
            centers, counts, widths = (values[shots == shot] for values in bars)
            title = f"{shot}-shot ({len(counts)} bins, {counts.sum():,.0f} images)"
            axes.bar(centers, counts, widths, color=COLOURS[shot], label=title)
    if mixture is not None:
        places = np.linspace(histogram.edges[0], histogram.edges[-1], 1000)
        density = mixture.log_density(torch.from_numpy(places)).exp().numpy()
        expected = histogram.total * float(histogram.widths.mean()) * density
        title = f"mixture of {len(mixture.weights)} normal distributions"
        axes.plot(places, expected, color="black", linewidth=1.5, label=title)
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel(f"{label.name} ({label.unit})")
    axes.set_ylabel(counted)
    if bins is not None or mixture is not None:
        axes.legend(frameon=False)
    return figure


def require_picture(path: Path) -> None:
    """Check that a path says which kind of picture to write there, and that nothing is there yet.

    Raises:
        ConfigError: It ends otherwise than with .png, .svg or .pdf, or something is there.
    """
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"expected a picture to write, {', '.join(PICTURES)}, got {path}")
    if path.exists():
        raise ConfigError(f"{path} exists; choose another name for the picture, or move it away")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, complete or not at all; the suffix says which kind.

    Raises:
        ConfigError: As `require_picture`.
    """
    require_picture(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
