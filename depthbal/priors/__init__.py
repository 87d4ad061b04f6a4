"""What is known about the training labels' distribution p_train(y)."""

import os

from depthbal.priors.files import kind_of
from depthbal.priors.fitting import FitReport
from depthbal.priors.gaussian_mixture import GaussianMixture
from depthbal.priors.histogram import Histogram
from depthbal.priors.relative import World

__all__ = ["FitReport", "GaussianMixture", "Histogram", "World", "load_prior"]


def load_prior(path: str | os.PathLike[str]) -> Histogram | GaussianMixture:
    """Read a prior, such as a run's histogram.json or prior.json.

    Raises:
        ValueError: There is no such file, or it holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Histogram([0.0, 1.0], [2.0]).save(f"{folder}/prior.json")
        ...     load_prior(f"{folder}/prior.json").total
        2.0
    """
    kind = kind_of(path)
    if kind == Histogram.__name__:
        return Histogram.load(path)
    if kind == GaussianMixture.__name__:
        return GaussianMixture.load(path)
    raise ValueError(f"expected a Histogram or a GaussianMixture in {path}, found {kind!r}")
