"""The figure of the training labels' density, with its shots and its mixture."""

import numpy as np
import torch
from matplotlib.figure import Figure

from depthbal.evaluation import SHOTS, Label, LabelBins
from depthbal.priors import GaussianMixture, Histogram

COLOURS = {"many": "#0072b2", "medium": "#56b4e9", "few": "#d55e00"}


def density_figure(
    histogram: Histogram, bins: LabelBins, mixture: GaussianMixture, label: Label
) -> Figure:
    """Return the number of training images per label, coloured by shot, and a mixture over it.

    Args:
        histogram: Of the training labels.
        bins: Its bins, with their shots.
        mixture: Fitted to it; drawn as the number of images per bin that it stands for.
        label: Name and unit.

    Source: Ren et al., CVPR 2022 (supplement, Fig. 2).
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    shots = np.array(bins.shots)[bins.index(torch.from_numpy(histogram.centers)).numpy()]
    for shot in SHOTS:
        chosen = shots == shot
        title = f"{shot}-shot ({chosen.sum()} bins, {histogram.counts[chosen].sum():,.0f} images)"
        axes.bar(
            histogram.centers[chosen],
            histogram.counts[chosen],
            width=histogram.widths[chosen],
            color=COLOURS[shot],
            label=title,
        )
    places = np.linspace(histogram.edges[0], histogram.edges[-1], 1000)
    density = mixture.log_density(torch.from_numpy(places)).exp().numpy()
    expected = histogram.total * float(histogram.widths.mean()) * density
    title = f"mixture of {len(mixture.weights)} normal distributions"
    axes.plot(places, expected, color="black", linewidth=1.5, label=title)
    axes.set_xlabel(f"{label.name} ({label.unit})")
    axes.set_ylabel("training images per bin")
    axes.legend(frameon=False)
    return figure
