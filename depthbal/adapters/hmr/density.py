"""How many training labels lie how far from the mean pose: the paper's figure 3 (supplement)."""

from pathlib import Path

import numpy as np
import torch

from depthbal.adapters.density import density_figure, save_figure
from depthbal.adapters.hmr.datamodule import REGIONS, HmrDataModule
from depthbal.adapters.hmr.distance import geodesic_pose_distance
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.evaluation import Label
from depthbal.priors import Histogram

CHUNK = 4096
LABEL = Label("geodesic distance to the mean pose", "radians, mean over 24 joints")


def label_density(data: HmrDataModule) -> Histogram:
    """Count the training bodies in 100 regions of the geodesic distance to the mean pose.

    Args:
        data: Set up for training; the distance is in radians, the mean over 24 joints.
    """
    assert data.train_set is not None
    people, mean = data.train_set.people, data.mean_params().rotmats
    poses = torch.split(torch.from_numpy(people.pose[people.valid]), CHUNK)
    parts = [geodesic_pose_distance(rotmats_of(pose), mean).double() for pose in poses]
    far = torch.cat(parts).numpy()
    edges = np.linspace(far.min(), max(far.max(), far.min() + 1e-6), REGIONS + 1)
    return Histogram(edges).update(far)


def save_density(density: Histogram, path: Path) -> None:
    """Draw the density into a .png, .pdf or .svg file, on a logarithmic axis."""
    counted = f"training labels per region ({REGIONS} regions)"
    save_figure(density_figure(density, LABEL, counted=counted, logarithmic=True), path)
