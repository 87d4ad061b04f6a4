import json
import logging
import time

import numpy as np
import pytest
import torch
from scipy.stats import norm

from depthbal.priors import GaussianMixture, Histogram
from tests.shared import SHARED, needs_shared

EDGES = np.linspace(0.7, 10.0, 94)
CENTERS = (EDGES[:-1] + EDGES[1:]) / 2
STEEP = Histogram(EDGES, 1e12 * np.exp(-CENTERS * 2.5))
WITH_A_GAP = Histogram(EDGES, np.where((CENTERS > 4) & (CENTERS < 6), 0, 1e6 * np.exp(-CENTERS)))
FEW_BINS = Histogram([0.0, 1.0, 2.0, 3.0], [8, 1, 1])


def official_counts() -> Histogram:
    assert SHARED is not None
    content = json.loads((SHARED / "facts" / "nyud2_train_pixel_counts.json").read_text())
    return Histogram(EDGES, content["counts"][7:])


def evidence_error(mixture: GaussianMixture, histogram: Histogram, sigma: float) -> float:
    """Largest |log E_mixture - log E_histogram| over the labels' range, from cumulative normals."""
    labels = np.flatnonzero(histogram.counts)
    p = np.linspace(histogram.edges[labels[0]], histogram.edges[labels[-1] + 1], 1501)[:, None]
    q = histogram.counts / histogram.total / histogram.widths
    left, right = (histogram.edges[:-1] - p) / sigma, (histogram.edges[1:] - p) / sigma
    mass = np.where(left > 0, norm.sf(left) - norm.sf(right), norm.cdf(right) - norm.cdf(left))
    spread = np.sqrt(mixture.variances.numpy() + sigma**2)
    fitted = norm.pdf(p, mixture.means.numpy(), spread) @ mixture.weights.numpy()
    return float(np.abs(np.log(fitted / (mass @ q))).max())


@needs_shared
@pytest.mark.parametrize(("sigma", "bound"), [(1.0, 0.001), (0.5, 0.006), (0.2, 0.05)])
def test_sixteen_components_follow_the_official_counts(sigma, bound):
    histogram = official_counts()
    started = time.process_time()
    mixture = GaussianMixture.fit(histogram, noise_sigma=sigma)
    assert time.process_time() - started < 3
    assert len(mixture.weights) == 16
    assert evidence_error(mixture, histogram, sigma) < bound


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("histogram", [STEEP, WITH_A_GAP, FEW_BINS], ids=["steep", "gap", "few"])
def test_the_report_is_the_largest_error_of_the_log_evidence(histogram, sigma):
    mixture = GaussianMixture.fit(histogram, 8, noise_sigma=sigma)
    error = evidence_error(mixture, histogram, sigma)
    assert mixture.fit_report.noise_sigma == sigma
    assert mixture.fit_report.largest_error == pytest.approx(error, rel=0.02, abs=1e-6)


def test_a_fit_that_cannot_follow_says_so(caplog):
    rough = Histogram(EDGES, np.where(np.arange(93) % 2 == 0, 1e6, 1.0))
    with caplog.at_level(logging.WARNING, logger="depthbal"):
        mixture = GaussianMixture.fit(rough, 3, noise_sigma=0.02)
    assert mixture.fit_report.largest_error > 0.05
    assert "a mixture of 3 components misses the log-evidence" in caplog.text


def test_the_report_is_saved_with_the_mixture(tmp_path):
    mixture = GaussianMixture.fit(FEW_BINS, 4, noise_sigma=0.7)
    mixture.save(tmp_path / "prior.json")
    assert GaussianMixture.load(tmp_path / "prior.json").fit_report == mixture.fit_report
    older = json.loads((tmp_path / "prior.json").read_text())
    older["fit_report"]["refined"] = False
    assert GaussianMixture.from_dict(older).fit_report == mixture.fit_report
    assert GaussianMixture([1.0], [0.0], [1.0]).fit_report is None


def vectors(spread: np.ndarray, count: int = 500) -> np.ndarray:
    """Two clusters in 24 dimensions, far from the origin, of the given spread per direction."""
    generator = np.random.default_rng(0)
    centres = 1e3 + generator.normal(size=(2, 24)) * 3 * spread
    chosen = generator.random(count) < 0.25
    return centres[chosen.astype(int)] + generator.normal(size=(count, 24)) * spread


def test_a_diagonal_fit_of_24_dimensions_survives_directions_that_hardly_vary():
    spread = np.where(np.arange(24) % 3 == 0, 1.0, 1e-7)
    samples = vectors(spread)
    samples[:, 1] = 5.0
    mixture = GaussianMixture.fit(samples, 2, covariance_type="diag", variance_floor=0.01)
    assert mixture.variances.shape == (2, 24)
    assert sorted(mixture.weights.tolist()) == pytest.approx([0.25, 0.75], abs=0.04)
    assert (mixture.variances >= 0.01).all()
    assert (mixture.variances[:, 1::3] == 0.01).all()
    torch.testing.assert_close(
        mixture.variances[:, 0::3], torch.ones(2, 8).double(), atol=0, rtol=0.5
    )
    mean = mixture.weights @ mixture.means
    np.testing.assert_allclose(mean, samples.mean(axis=0), rtol=1e-9)


def test_full_covariances_are_floored_along_every_axis():
    generator = np.random.default_rng(1)
    line = generator.normal(size=(500, 1)) * np.array([3.0, 4.0])  # no width across (4, -3)
    mixture = GaussianMixture.fit(line, 1, covariance_type="full", variance_floor=0.25)
    eigenvalues, axes = torch.linalg.eigh(mixture.variances[0])
    assert eigenvalues[0].item() == pytest.approx(0.25)
    assert eigenvalues[1].item() == pytest.approx(np.var(line, axis=0).sum(), rel=1e-3)
    assert abs(axes[:, 0] @ torch.tensor([0.8, -0.6]).double()) == pytest.approx(1.0)


def test_scalar_samples_far_from_zero_keep_their_variance():
    samples = 1e8 + np.random.default_rng(2).normal(size=2000)
    mixture = GaussianMixture.fit(samples, 1)
    assert mixture.variances.item() == pytest.approx(samples.var(), rel=1e-6)
    assert mixture.means.item() == pytest.approx(samples.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (FEW_BINS, {"noise_sigma": float("nan")}, "positive, finite noise_sigma"),
        (FEW_BINS, {"n_components": 0}, "at least 1 component"),
        (FEW_BINS, {"variance_floor": 0.0}, "variance_floor"),
        (Histogram(EDGES), {}, "empty"),
        (torch.tensor([1.0, float("inf")]), {}, "finite samples"),
        ([2.0, 2.0], {"n_components": 1}, "labels that vary"),
        ([1.0, 2.0], {"n_components": 3}, "n_components"),
        ([[1.0, 2.0], [3.0, 4.0]], {"covariance_type": "tied"}, "'full' or 'diag', got 'tied'"),
        ([1.0, 2.0], {"variance_floor": float("nan")}, "finite variance_floor"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(data, settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture.fit(data, **{"n_components": 1, **settings})
