"""The evidence of labels that are spread evenly within their bins."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from depthbal.priors import GaussianMixture, Histogram
from depthbal.priors.bin_evidence import histogram_log_evidence

UNEVEN = Histogram([1.0, 1.5, 3.0, 3.2, 7.0], [4.0, 3.0, 0.0, 8.0])


@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0])
def test_equals_numerical_integration(sigma):
    locations = np.array([0.8, 1.5, 2.9, 3.1, 5.0, 7.3])
    nodes, shares = np.polynomial.legendre.leggauss(400)
    expected = np.zeros(len(locations))
    for (low, high), density in zip(
        itertools.pairwise(UNEVEN.edges), UNEVEN.counts / 15 / UNEVEN.widths, strict=True
    ):
        y = low + (high - low) * (nodes + 1) / 2
        expected += norm.pdf(y, locations[:, None], sigma) @ shares * (high - low) / 2 * density
    got = histogram_log_evidence(UNEVEN, locations, sigma)
    np.testing.assert_allclose(got, np.log(expected), rtol=1e-8)


def test_is_finite_and_right_hundreds_of_sigmas_outside_the_labels():
    """Far outside only the nearest edge counts: log [q phi(z) s / z], z its distance in sigmas."""
    got = histogram_log_evidence(Histogram([0.0, 10.0], [1]), [-30.0, 40.0], 0.1)
    expected = np.log(0.1) + norm.logpdf(300) - np.log(300)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_point_masses_say_the_same_for_noise_wider_than_the_bins():
    edges = np.linspace(0.7, 10.0, 94)
    histogram = Histogram(edges, np.exp(-edges[:-1]))
    locations = np.linspace(0.7, 10.0, 50)
    points = GaussianMixture.from_histogram(histogram)
    expected = np.log(norm.pdf(locations[:, None], points.means, 0.5) @ points.weights.numpy())
    got = histogram_log_evidence(histogram, locations, 0.5)
    np.testing.assert_allclose(got, expected, atol=3e-3)
