"""What is known about the training labels' distribution p_train(y)."""

from depthbal.priors.gaussian_mixture import GaussianMixture
from depthbal.priors.histogram import Histogram

__all__ = ["GaussianMixture", "Histogram"]
