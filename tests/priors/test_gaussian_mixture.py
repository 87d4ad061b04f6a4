import json

import numpy as np
import pytest
import torch
from scipy.stats import norm

from depthbal.priors import GaussianMixture, Histogram, load_prior

EDGES = np.linspace(0.7, 10.0, 94)
CENTERS = (EDGES[:-1] + EDGES[1:]) / 2
LONG_TAIL = Histogram(EDGES, 1e7 * np.exp(-CENTERS / 1.2))


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
    with pytest.raises(ValueError, match="without point masses"):
        mixture.log_density(torch.zeros(1))


def test_fits_repeat_and_save_and_load_are_exact(tmp_path):
    mixture = GaussianMixture.fit(LONG_TAIL)
    mixture.save(tmp_path / "prior.json")
    loaded = GaussianMixture.load(tmp_path / "prior.json")
    again = GaussianMixture.fit(LONG_TAIL)
    for name in ("weights", "means", "variances"):
        assert torch.equal(getattr(loaded, name), getattr(mixture, name))
        assert torch.equal(getattr(again, name), getattr(mixture, name))


def test_the_prior_of_a_run_is_its_losss_or_else_its_histogram(tmp_path):
    histogram, mixture = LONG_TAIL.to_dict(), GaussianMixture.fit(LONG_TAIL, 4).to_dict()
    path = tmp_path / "prior.json"
    for stored in (mixture, histogram):
        path.write_text(json.dumps({"histogram": histogram, "prior": stored}))
        assert load_prior(path).to_dict() == stored
    path.write_text(json.dumps({"histogram": histogram, "prior": None}))
    assert load_prior(path).to_dict() == histogram
    path.write_text(json.dumps({"histogram": {"kind": "Mask"}, "prior": None}))
    with pytest.raises(ValueError, match=r"expected a Histogram in .*prior\.json.*'Mask'"):
        load_prior(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot read .*prior\.json: No such file"),
        ('{"kind": "Histogram"}', "expected a GaussianMixture.*its kind is 'Histogram'"),
        ('{"kind": "GaussianMixture", "weights": [1.0]}', r"prior\.json.*it lacks 'means'"),
        (
            '{"kind": "GaussianMixture", "weights": [-1.0], "means": [1.0], "variances": [1.0]}',
            r"prior\.json.*weights that are not negative",
        ),
    ],
)
def test_a_missing_foreign_or_incomplete_file_is_an_error_that_names_it(tmp_path, text, message):
    if text is not None:
        (tmp_path / "prior.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        GaussianMixture.load(tmp_path / "prior.json")


@pytest.mark.parametrize(
    ("weights", "means", "variances", "message"),
    [
        ([1.0], [1.0, 2.0], [1.0], "expected weights"),
        ([-1.0, 2.0], [1.0, 2.0], [1.0, 1.0], "not negative"),
        ([0.0], [1.0], [1.0], "sum to more than 0"),
        ([1.0], [1.0], [float("inf")], "finite weights, means and variances"),
        ([1.0], [1.0], [-1.0], "variances"),
        ([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.5], [0.5, 1.0]], "covariance of all"),
    ],
)
def test_bad_arguments_are_errors(weights, means, variances, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, means, variances)
