"""Huber noise: the evidence, the balanced Huber loss over it, and the read-out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from depthbal.losses import log_evidence, truncated_normal_mean
from depthbal.losses.families import piecewise, point_masses
from depthbal.losses.families.huber import HuberFamily
from depthbal.losses.families.huber_evidence import huber_log_evidence, log_normaliser
from depthbal.losses.families.huber_readout import truncated_huber_mean
from depthbal.losses.families.laplace import LaplaceFamily, truncated_laplace_mean
from depthbal.losses.families.laplace_evidence import laplace_log_evidence
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.families.test_laplace import BINS, COUNTS, gradients, random_masses
from tests.reference import noise_energy, noise_log_evidence, noise_mean_on_range


def brute_force(prior: GaussianMixture, delta: float):
    return lambda p, s: noise_log_evidence(p, prior.weights, prior.means, s, delta)


def table_calls(monkeypatch) -> list:
    built: list = []
    build = piecewise.build
    monkeypatch.setattr(piecewise, "build", lambda *a: built.append(build(*a)) or built[-1])
    return built


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 2.0, 100.0])
@pytest.mark.parametrize("delta", [0.1, 1.0, 50.0])
def test_the_normaliser_equals_numerical_integration(sigma, delta):
    def density(r: float) -> float:
        return math.exp(-noise_energy(r, sigma, delta))

    core, _ = quad(density, 0, min(delta, 40 * sigma), epsabs=0, epsrel=1e-12)
    tail, _ = quad(density, delta, delta + 40 * sigma**2 / delta, epsabs=0, epsrel=1e-12)
    got = log_normaliser(torch.tensor(sigma, dtype=torch.float64), delta)
    assert got.item() == pytest.approx(math.log(2 * (core + tail)), abs=1e-9)


@pytest.mark.parametrize("p", [-2.0, 1.3, 3.5, 7.9, 12.0])
def test_the_evidence_is_the_sum_over_the_bins_of_a_histogram(p):
    sigma, delta, total = 0.8, 1.1, sum(COUNTS)
    normaliser = 2 * quad(lambda r: math.exp(-noise_energy(r, sigma, delta)), 0, 60)[0]
    terms = [
        count / total * math.exp(-noise_energy(k + 0.5 - p, sigma, delta)) / normaliser
        for k, count in enumerate(COUNTS)
    ]
    value = huber_log_evidence(torch.tensor(p, dtype=torch.float64), BINS, sigma, delta)
    assert value.item() == pytest.approx(math.log(sum(terms)), abs=1e-8)


def test_many_narrow_bins_tend_to_the_integral_over_the_density():
    # p_train(y) = 2 y on [0, 1] in 2,000 bins.
    edges = [k / 2000 for k in range(2001)]
    prior = GaussianMixture.from_histogram(Histogram(edges, [2 * k + 1 for k in range(2000)]))
    sigma, delta, p = 0.3, 0.2, 0.4

    def integrand(y: float) -> float:
        return 2 * y * math.exp(-noise_energy(y - p, sigma, delta))

    integral, _ = quad(integrand, 0, 1, points=[p - delta, p + delta])
    normaliser, _ = quad(lambda r: math.exp(-noise_energy(r, sigma, delta)), 0, 20, points=[delta])
    value = huber_log_evidence(torch.tensor(p, dtype=torch.float64), prior, sigma, delta)
    assert value.item() == pytest.approx(math.log(integral / (2 * normaliser)), abs=1e-6)


@pytest.mark.parametrize("delta", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 100.0])
def test_value_and_gradients_equal_all_pairs_in_float64(delta, sigma):
    prior = random_masses(65)
    preds = torch.linspace(-3, 14, 507, dtype=torch.float64).view(3, 169)
    scale = torch.tensor(sigma, dtype=torch.float64)
    fast = gradients(lambda p, s: huber_log_evidence(p, prior, s, delta), preds, scale)
    for got, expected in zip(fast, gradients(brute_force(prior, delta), preds, scale), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("per_label", [False, True])
def test_gradcheck_of_the_balanced_huber_loss(per_label):
    family = HuberFamily(0.9)
    target = torch.tensor([0.4, 2.6, 7.7], dtype=torch.float64)
    preds = torch.tensor([1.1, 2.2, 9.1], dtype=torch.float64, requires_grad=True)
    shape = (3,) if per_label else ()
    sigma = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)

    def loss(p, s):
        return -family.log_density(p - target, s) + family.log_evidence(p, BINS, s)

    assert torch.autograd.gradcheck(loss, (preds, sigma))


@pytest.mark.parametrize("sigma", [0.05, 1.0, 10.0])
def test_a_large_delta_is_gaussian_noise(sigma):
    preds = torch.linspace(-3, 12, 101, dtype=torch.float64)
    scale = torch.tensor(sigma, dtype=torch.float64)
    got = gradients(lambda p, s: huber_log_evidence(p, BINS, s, 1000.0), preds, scale)
    expected = gradients(lambda p, s: log_evidence(p, BINS, s), preds, scale)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    means = truncated_huber_mean(preds, sigma, 1000.0, (0.0, 8.0))
    torch.testing.assert_close(
        means, truncated_normal_mean(preds, sigma, (0.0, 8.0)), rtol=0, atol=1e-8
    )


def test_a_small_delta_is_laplace_noise_of_scale_sigma_squared_over_delta():
    b, delta = 0.7, 1e-6
    sigma = math.sqrt(b * delta)
    preds = torch.linspace(-3, 12, 101, dtype=torch.float64)
    got = huber_log_evidence(preds, BINS, sigma, delta)
    torch.testing.assert_close(got, laplace_log_evidence(preds, BINS, b), rtol=0, atol=1e-5)
    means = truncated_huber_mean(preds, sigma, delta, (0.0, 8.0))
    torch.testing.assert_close(
        means, truncated_laplace_mean(preds, b, (0.0, 8.0)), rtol=0, atol=1e-5
    )


# 0.05 beside bins of 1 m: between the bins hardly any mass counts but the two next to p.
@pytest.mark.parametrize(
    ("prior", "sigma", "delta"),
    [
        (BINS, 0.05, 0.1),
        (BINS, 1.0, 0.5),
        (BINS, 1.0, 3.0),
        (BINS, 10.0, 1.0),
        (random_masses(100), 0.3, 0.3),
        (random_masses(100), 1.0, 2.0),
    ],
)
def test_the_table_is_within_its_tolerance_of_float64(prior, sigma, delta, monkeypatch):
    monkeypatch.setattr(point_masses, "TABULATE_PAIRS", 1)
    built = table_calls(monkeypatch)
    torch.manual_seed(0)
    preds = torch.rand(2, 30_001) * 14 - 2
    scale = torch.tensor(sigma)
    value, by_preds, by_sigma = gradients(
        lambda p, s: huber_log_evidence(p, prior, s, delta), preds, scale
    )
    assert built[-1] is not None
    exact = gradients(brute_force(prior, delta), preds.double(), scale.double())
    signs = torch.where(torch.arange(preds.numel()) % 3 == 0, -1.0, 2.0).view_as(preds)
    assert ((value - exact[0]).abs() / exact[0].abs().clamp(min=1)).max() < 1.1e-5
    slope_error = ((by_preds - exact[1]) / signs * sigma).abs()
    assert (slope_error / (exact[1] * sigma).abs().clamp(min=1)).max() < 1.1e-5
    assert by_sigma.item() == pytest.approx(exact[2].item(), rel=1e-5)


def test_few_predictions_and_wide_ones_are_summed_and_finite(monkeypatch):
    built = table_calls(monkeypatch)
    huber_log_evidence(torch.rand(1000) * 8, BINS, 1.0, 1.0)
    assert not built
    preds = (torch.rand(300_000) * 2 - 1) * 1e6
    preds.requires_grad_()
    value = huber_log_evidence(preds, BINS, 1e-3, 0.1)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(preds.grad).all()


def test_the_table_gives_way_where_it_would_be_large(monkeypatch):
    built = table_calls(monkeypatch)
    prior = random_masses(2000)
    preds = torch.rand(3000) * 10
    value = huber_log_evidence(preds, prior, 0.3, 0.2)
    assert built == [None]
    exact = brute_force(prior, 0.2)(preds.double(), torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_sigma_that_follows_the_prediction_is_tabulated(monkeypatch):
    def sigma_of(preds: torch.Tensor) -> torch.Tensor:
        return (0.2 + 0.1 * preds.abs()).clamp(max=0.85)

    built = table_calls(monkeypatch)
    torch.manual_seed(0)
    preds = torch.rand(150_000) * 10 - 1
    got = gradients(
        lambda p, s: huber_log_evidence(p, BINS, s, 0.4, sigma_of=sigma_of),
        preds,
        sigma_of(preds),
    )
    assert built[-1] is not None
    wide = preds.double()
    expected = gradients(brute_force(BINS, 0.4), wide, sigma_of(wide))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [LaplaceFamily(), HuberFamily(0.9)])
def test_compiled_equals_eager(family):
    def value(preds, sigma):
        return family.log_evidence(preds, BINS, sigma)

    preds, sigma = torch.rand(503) * 10 - 1, torch.tensor(0.7)
    compiled = torch.compile(value, backend="aot_eager")
    for got, expected in zip(
        gradients(compiled, preds, sigma), gradients(value, preds, sigma), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_narrow_bins_of_labels_stand_for_them_by_two_masses_each():
    labels = torch.sort(random_masses(5000).means).values.view(250, 20)
    bins = GaussianMixture(torch.ones(250), labels.mean(1), labels.var(1, correction=0))
    each = GaussianMixture(torch.ones(5000), labels.flatten(), torch.zeros(5000))
    preds = torch.linspace(-1, 11, 501, dtype=torch.float64)
    sigma = torch.tensor(1.0, dtype=torch.float64)
    expected = gradients(brute_force(each, 0.8), preds, sigma)
    split = point_masses.without_spread(bins)
    got = gradients(lambda p, s: huber_log_evidence(p, split, s, 0.8), preds, sigma)
    assert (got[0] - expected[0]).abs().max() < 1e-5
    assert (got[1] - expected[1]).abs().max() < 1e-4
    merged = GaussianMixture(bins.weights, bins.means, torch.zeros(250))
    assert (huber_log_evidence(preds, merged, sigma, 0.8) - expected[0]).abs().max() > 2e-5


@pytest.mark.parametrize("budget", [1e-6, 1e-2, 1e6])
def test_the_memory_budget_does_not_change_the_result(budget, monkeypatch):
    monkeypatch.setattr(point_masses, "CACHE_MB", 1e9)
    preds = torch.linspace(-1, 9, 1013, dtype=torch.float64)
    sigma = torch.linspace(0.1, 2, 1013, dtype=torch.float64)
    value = huber_log_evidence(preds, BINS, sigma, 0.5, memory_budget_mb=budget)
    expected = brute_force(BINS, 0.5)(preds, sigma)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_memory_does_not_grow_with_the_number_of_masses():
    preds = (torch.rand(20_000) * 10).requires_grad_()
    saved: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        huber_log_evidence(preds, random_masses(500), 1.0, 0.5).sum()
    assert sum(saved) <= 4 * preds.numel()


@given(shape=st.lists(st.integers(0, 5), min_size=0, max_size=4))
@settings(max_examples=20, deadline=None)
def test_any_shape_is_elementwise(shape):
    preds = torch.rand(shape, dtype=torch.float64) * 8
    value = huber_log_evidence(preds, BINS, 0.6, 0.7)
    assert value.shape == preds.shape
    for p, v in zip(preds.flatten(), value.flatten(), strict=True):
        torch.testing.assert_close(huber_log_evidence(p, BINS, 0.6, 0.7), v)


def test_vectors_spread_components_and_wrong_scales_are_errors():
    family, sigma = HuberFamily(1.0), torch.tensor(1.0)
    plane = GaussianMixture([1.0], [[0.0, 0.0]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="only the gaussian family balances vectors"):
        family.log_evidence(torch.zeros(3, 2), plane, sigma)
    with pytest.raises(ValueError, match="family='gaussian'"):
        family.log_evidence(torch.zeros(3), GaussianMixture([1.0], [0.0], [1.0]), sigma)
    with pytest.raises(ValueError, match="positive noise_sigma"):
        family.log_evidence(torch.zeros(3), BINS, -sigma)
    with pytest.raises(ValueError, match="one per label"):
        family.log_evidence(torch.zeros(3, 1), BINS, torch.ones(3))
    with pytest.raises(ValueError, match="positive, finite delta"):
        HuberFamily(0.0)


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("delta", [1e-3, 0.2, 1.0, 30.0])
def test_the_readout_equals_quadrature(sigma, delta):
    label_range = (0.7, 10.0)
    for p in (-50.0, 0.3, 0.7, 0.9, 5.0, 9.99, 10.2, 1000.0):
        expected = noise_mean_on_range(p, sigma, label_range, delta)
        got = truncated_huber_mean(torch.tensor(p, dtype=torch.float64), sigma, delta, label_range)
        assert got.item() == pytest.approx(expected, abs=1e-8), p


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("delta", [1e-3, 1.0, 1e4])
def test_the_readout_grows_with_the_location_and_stays_in_the_range(sigma, delta):
    preds = torch.linspace(-30, 40, 100_001, dtype=torch.float64)
    means = truncated_huber_mean(preds, sigma, delta, (0.7, 10.0))
    assert (means.diff() >= -1e-9).all()
    assert ((means >= 0.7) & (means <= 10)).all()
    per_label = truncated_huber_mean(preds, torch.full_like(preds, sigma), delta, (0.7, 10.0))
    torch.testing.assert_close(per_label, means)
    far = truncated_huber_mean(torch.tensor([-1e30, 1e30]), sigma, delta, (0.7, 10.0))
    assert torch.isfinite(far).all()


def test_a_readout_without_a_range_or_a_tail_is_an_error():
    with pytest.raises(ValueError, match="lo < hi"):
        truncated_huber_mean(torch.zeros(1), 1.0, 1.0, (1.0, 1.0))
    with pytest.raises(ValueError, match="positive delta"):
        truncated_huber_mean(torch.zeros(1), 1.0, 0.0, (0.0, 1.0))


@pytest.mark.parametrize("observed", [-0.5, 2.5, 5.5, 8.5])
def test_balanced_huber_with_readout_recovers_the_balanced_posterior_mean(observed):
    # As for Laplace noise; a location outside the range is possible where the core reaches it.
    sigma, delta, low, high, bins = 0.8, 1.2, 0.0, 8.0, 800
    centers = (torch.arange(bins, dtype=torch.float64) + 0.5) * (high - low) / bins + low
    density = 9 * torch.exp(-centers) + 0.1
    prior = GaussianMixture(density, centers, torch.zeros(bins))
    family, scale = HuberFamily(delta), torch.tensor(sigma, dtype=torch.float64)
    noise = torch.tensor(
        [math.exp(-noise_energy(c - observed, sigma, delta)) for c in centers.tolist()]
    )
    posterior = density * noise.double() / (density * noise.double()).sum()

    grid = torch.linspace(low - 2, high + 2, 1201, dtype=torch.float64)
    data = -family.log_density(grid[:, None] - centers, scale) @ posterior
    best = grid[(data + family.log_evidence(grid, prior, scale)).argmin()]

    truth = noise_mean_on_range(observed, sigma, (low, high), delta)
    assert family.readout(best, scale, (low, high)).item() == pytest.approx(truth, abs=0.01)
    if observed in (-0.5, 8.5):
        assert abs(best.item() - truth) > 0.5  # the raw location
