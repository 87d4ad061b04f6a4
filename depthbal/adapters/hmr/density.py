"""How many training labels lie how far from the mean pose: the paper's figure 3 (supplement)."""

from pathlib import Path

import numpy as np

from depthbal.adapters.hmr.datamodule import REGIONS, HmrDataModule
from depthbal.adapters.hmr.meshes import people_distances
from depthbal.files import replacing
from depthbal.priors import Histogram


def label_density(data: HmrDataModule) -> Histogram:
    """Count the training bodies in 100 regions of the geodesic distance to the mean pose.

    Args:
        data: Set up for training; the distance is in radians, the mean over 24 joints.
    """
    assert data.train_set is not None
    people = data.train_set.people
    distances = people_distances(data.root, people.rows(people.valid), vertex=False)
    far = distances.geodesic.numpy()
    return Histogram(np.linspace(far.min(), max(far.max(), far.min() + 1e-6), REGIONS + 1)).update(
        far
    )


def save_density(density: Histogram, path: Path) -> None:
    """Draw the density into a .png, .pdf or .svg file, on a logarithmic axis.

    Source: Ren et al., CVPR 2022, supplement, figure 3.
    """
    from matplotlib.figure import Figure  # only where there is something to draw

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(density.edges[:-1], density.counts, np.diff(density.edges), align="edge")
    axes.set_yscale("log")
    axes.set_xlabel("geodesic distance to the mean pose (radians, mean over 24 joints)")
    axes.set_ylabel(f"training labels per region ({len(density.counts)} regions)")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
