"""What is known about the training labels' distribution p_train(y)."""

import os
from typing import Any

from depthbal.io import read_stored
from depthbal.priors.fitting import FitReport
from depthbal.priors.gaussian_mixture import GaussianMixture
from depthbal.priors.histogram import Histogram, Spacing, World

__all__ = ["FitReport", "GaussianMixture", "Histogram", "Spacing", "World", "load_prior"]


def load_prior(path: str | os.PathLike[str]) -> Histogram | GaussianMixture:
    """Read a prior: a saved one, or of a run's prior.json its loss's prior, else its histogram.

    Raises:
        ValueError: There is no such file, or it holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Histogram([0.0, 1.0], [2.0]).save(f"{folder}/prior.json")
        ...     load_prior(f"{folder}/prior.json").total
        2.0
    """
    content = read_stored(path)
    if "histogram" in content:  # of a run
        content = content["prior"] or content["histogram"]
    return prior_class(content).restored(content, path)


def prior_class(content: dict[str, Any]) -> type[Histogram] | type[GaussianMixture]:
    """Return the class whose ``to_dict`` gave this."""
    return GaussianMixture if content.get("kind") == GaussianMixture.__name__ else Histogram
