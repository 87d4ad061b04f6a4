import json
import logging
import time

import numpy as np
import pytest
import torch
from scipy.stats import norm

from depthbal.priors import GaussianMixture, Histogram, load_prior
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


def test_log_density_equals_scipy():
    mixture = GaussianMixture([1.0, 3.0], [2.0, 5.0], [0.25, 4.0])
    values = np.linspace(-3, 12, 50)
    expected = np.log(0.25 * norm.pdf(values, 2, 0.5) + 0.75 * norm.pdf(values, 5, 2))
    np.testing.assert_allclose(mixture.log_density(torch.from_numpy(values)), expected)


def test_recovers_a_known_mixture_from_samples():
    generator = np.random.default_rng(0)
    samples = np.concatenate([generator.normal(2, 0.5, 9000), generator.normal(7, 1.0, 1000)])
    mixture = GaussianMixture.fit(samples, n_components=2)
    torch.testing.assert_close(
        mixture.weights, torch.tensor([0.9, 0.1]).double(), atol=0.01, rtol=0
    )
    torch.testing.assert_close(mixture.means, torch.tensor([2.0, 7.0]).double(), atol=0.1, rtol=0)
    deviations = mixture.variances.sqrt()
    torch.testing.assert_close(deviations, torch.tensor([0.5, 1.0]).double(), atol=0.1, rtol=0)


def test_no_component_is_narrower_than_a_label_in_its_bin():
    spiky = Histogram(EDGES, np.where(np.arange(93) % 8 == 0, 1e6, 1.0))
    assert GaussianMixture.fit(spiky).variances.min() >= 0.1**2 / 12 - 1e-12
    assert GaussianMixture.fit(spiky, variance_floor=0.04).variances.min() >= 0.04


def test_a_histogram_becomes_point_masses_at_its_occupied_bins():
    mixture = GaussianMixture.from_histogram(Histogram([0.0, 1.0, 2.0, 3.0], [1, 0, 3]))
    assert mixture.weights.tolist() == [0.25, 0.75]
    assert mixture.means.tolist() == [0.5, 2.5]
    assert mixture.variances.tolist() == [0, 0]


def test_fits_repeat_and_save_and_load_are_exact(tmp_path):
    mixture = GaussianMixture.fit(FEW_BINS, 4, noise_sigma=0.7)
    mixture.save(tmp_path / "prior.json")
    stored = json.loads((tmp_path / "prior.json").read_text())
    stored["fit_report"]["refined"] = False  # of an older file
    others = GaussianMixture.fit(FEW_BINS, 4, noise_sigma=0.7), GaussianMixture.from_dict(stored)
    for other in (*others, GaussianMixture.load(tmp_path / "prior.json")):
        for name in ("weights", "means", "variances"):
            assert torch.equal(getattr(other, name), getattr(mixture, name))
        assert other.fit_report == mixture.fit_report
    assert GaussianMixture([1.0], [0.0], [1.0]).fit_report is None


def test_the_prior_of_a_run_is_its_losss_or_else_its_histogram(tmp_path):
    histogram, mixture = FEW_BINS.to_dict(), GaussianMixture.fit(FEW_BINS, 4).to_dict()
    path = tmp_path / "prior.json"
    for stored in (mixture, histogram):
        path.write_text(json.dumps({"histogram": histogram, "prior": stored}))
        assert load_prior(path).to_dict() == stored
    path.write_text(json.dumps({"histogram": histogram, "prior": None}))
    assert load_prior(path).to_dict() == histogram
    path.write_text(json.dumps({"histogram": {"kind": "Mask"}, "prior": None}))
    with pytest.raises(ValueError, match=r"expected a Histogram in .*prior\.json.*'Mask'"):
        load_prior(path)
