import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from depthbal.priors import GaussianMixture, Histogram

EDGES = np.linspace(0.7, 10.0, 94)
CENTERS = (EDGES[:-1] + EDGES[1:]) / 2
TRAIN = Histogram(EDGES, 1e7 * np.exp(-CENTERS / 2.0))
UNEVEN = Histogram([1.0, 1.5, 3.0, 3.2, 7.0], [4.0, 3.0, 2.0, 8.0])


def ratios(kernel: Histogram) -> np.ndarray:
    return kernel.counts / kernel.counts[0]


def test_full_balancing_for_uniform_labels_changes_nothing_on_any_bins():
    for histogram in (TRAIN, UNEVEN, Histogram([0.0, 1.0, 3.0], [2, 0])):
        kernel = histogram.relative_to("uniform")
        np.testing.assert_array_equal(kernel.counts, histogram.counts)
        np.testing.assert_array_equal(kernel.edges, histogram.edges)


@pytest.mark.parametrize("target", ["uniform", "log_uniform", "exp_uniform", UNEVEN])
def test_no_balancing_or_the_labels_as_target_is_a_flat_kernel(target):
    kernel = UNEVEN.relative_to(target, tau=0.0)
    np.testing.assert_allclose(ratios(kernel), UNEVEN.widths / 0.5, rtol=1e-12)
    with_gap = Histogram([0.0, 1.0, 2.0, 4.0], [3, 0, 5]).relative_to("uniform", tau=0.0)
    np.testing.assert_allclose(with_gap.counts, [2, 2, 4], rtol=1e-12)
    itself = UNEVEN.relative_to(UNEVEN)
    np.testing.assert_allclose(ratios(itself), UNEVEN.widths / 0.5, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "density"),
    [("uniform", lambda y: 1.0), ("log_uniform", lambda y: 1 / y), ("exp_uniform", np.exp)],
)
def test_named_worlds_equal_numerical_integration_over_every_bin(name, density, tau):
    expected = []
    for (low, high), q in zip(
        itertools.pairwise(UNEVEN.edges), UNEVEN.counts / UNEVEN.widths, strict=True
    ):
        expected.append(quad(lambda y, q=q: (q / density(y)) ** tau, low, high)[0])
    kernel = UNEVEN.relative_to(name, tau)
    np.testing.assert_allclose(kernel.counts / kernel.total, expected / np.sum(expected), rtol=1e-9)
    assert kernel.total == pytest.approx(UNEVEN.total)


@pytest.mark.parametrize("tau", [0.4, 1.0])
def test_a_target_histogram_with_other_edges_is_spread_evenly_within_its_bins(tau):
    target = Histogram([1.0, 2.0, 7.0], [1.0, 10.0])  # densities 1 and 2
    mass = np.array([0.5, 0.5 + 2.0, 0.4, 7.6])  # counted by hand on UNEVEN's bins
    expected = UNEVEN.widths * (UNEVEN.counts / mass) ** tau
    kernel = UNEVEN.relative_to(target, tau)
    np.testing.assert_allclose(ratios(kernel), expected / expected[0], rtol=1e-12)


def test_a_mixture_of_log_depths_tilted_has_the_evidence_of_depths_made_uniform():
    """log depth z = log y under noise s, depth to be uniform: computed in depth, the evidence is
    the integral of the log-normal noise density times the depths' own p_train(y)."""
    mixture = GaussianMixture([0.7, 0.3], [0.5, 1.6], [0.1, 0.2])
    kernel = mixture.relative_to("exp_uniform")
    sigma, locations = 0.3, np.linspace(-0.5, 2.5, 7)
    y = np.exp(np.linspace(-6, 8, 40_001))
    p_depth = (
        0.7 * norm.pdf(np.log(y), 0.5, 0.1**0.5) + 0.3 * norm.pdf(np.log(y), 1.6, 0.2**0.5)
    ) / y
    lognormal = norm.pdf(np.log(y), locations[:, None], sigma) / y
    expected = np.trapezoid(lognormal * p_depth, y, axis=1)
    blurred = GaussianMixture(kernel.weights, kernel.means, kernel.variances + sigma**2)
    got = blurred.log_density(torch.from_numpy(locations)).exp().numpy()
    np.testing.assert_allclose(got / got.sum(), expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize("rate", [-1.0, 0.5])
def test_tilting_multiplies_the_density_by_an_exponential(rate):
    mixture = GaussianMixture([0.2, 0.8], [-1.0, 2.0], [0.5, 1.5])
    y = np.linspace(-5, 6, 12)
    expected = 0.2 * norm.pdf(y, -1, 0.5**0.5) + 0.8 * norm.pdf(y, 2, 1.5**0.5)
    expected *= np.exp(rate * y)
    got = mixture.tilted(rate).log_density(torch.from_numpy(y)).exp().numpy()
    np.testing.assert_allclose(got / got[0], expected / expected[0], rtol=1e-9)
    far = GaussianMixture([0.5, 0.5], [0.0, 1000.0], [1.0, 1.0])
    assert far.tilted(abs(2 * rate)).weights.tolist() == [0.0, 1.0]  # though exp overflows


def test_edges_that_differ_by_rounding_make_no_ratio_infinite():
    """A bin of the target that is empty, next to an edge that is off by rounding."""
    target = Histogram(np.array([1.0, 1.5, 3.0, 3.2, 7.0]) * (1 + 1e-15), [1, 1, 0, 1])
    with pytest.raises(ValueError, match=r"infinite.*bin 2"):
        UNEVEN.relative_to(target)
    train = Histogram(UNEVEN.edges, [1, 1, 0, 1])
    np.testing.assert_allclose(
        ratios(train.relative_to(target)), np.array([0.5, 1.5, 0, 3.8]) / 0.5, rtol=1e-9
    )
