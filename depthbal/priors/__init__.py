"""What is known about the training labels' distribution p_train(y)."""

from depthbal.priors.gaussian_mixture import GaussianMixture
from depthbal.priors.histogram import Histogram
from depthbal.priors.loading import load_prior
from depthbal.priors.refinement import FitReport
from depthbal.priors.relative import World

__all__ = ["FitReport", "GaussianMixture", "Histogram", "World", "load_prior"]
