"""Laplace noise: the evidence, the balanced L1 loss over it, and the read-out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from depthbal.losses.families import laplace_evidence, piecewise, point_masses
from depthbal.losses.families.laplace import LaplaceFamily, truncated_laplace_mean
from depthbal.losses.families.laplace_evidence import laplace_log_evidence
from depthbal.priors import GaussianMixture, Histogram
from tests.reference import noise_log_evidence, noise_mean_on_range

COUNTS = [50, 30, 12, 5, 2, 1, 0, 3]
BINS = GaussianMixture.from_histogram(Histogram([float(edge) for edge in range(9)], COUNTS))


def random_masses(count: int, spread: float = 10.0) -> GaussianMixture:
    generator = torch.Generator().manual_seed(count)
    weights = torch.rand(count, generator=generator, dtype=torch.float64) ** 4 + 1e-6
    means = torch.rand(count, generator=generator, dtype=torch.float64) * spread
    return GaussianMixture(weights, means, torch.zeros(count))


def gradients(function, preds: torch.Tensor, sigma: torch.Tensor):
    preds, sigma = preds.clone().requires_grad_(), sigma.clone().requires_grad_()
    value = function(preds, sigma)
    # One weight per entry, of either sign, so that the sums cannot hide a wrong entry.
    signs = torch.where(torch.arange(value.numel()) % 3 == 0, -1.0, 2.0).view_as(value)
    return value.detach(), *torch.autograd.grad((value * signs).sum(), (preds, sigma))


def brute_force(prior: GaussianMixture):
    return lambda p, b: noise_log_evidence(p, prior.weights, prior.means, b, None)


def test_the_density_integrates_to_1():
    family, b = LaplaceFamily(), torch.tensor(0.7)
    density = lambda r: family.log_density(torch.tensor(r), b).exp().item()  # noqa: E731
    assert 2 * quad(density, 0, 40)[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("p", [-2.0, 1.3, 3.5, 7.9, 12.0])
def test_the_evidence_is_the_sum_over_the_bins_of_a_histogram(p):
    b = 0.8
    total = sum(COUNTS)
    expected = math.log(
        sum(
            count / total * math.exp(-abs(k + 0.5 - p) / b) / (2 * b)
            for k, count in enumerate(COUNTS)
        )
    )
    value = laplace_log_evidence(torch.tensor(p, dtype=torch.float64), BINS, b)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_many_narrow_bins_tend_to_the_integral_over_the_density():
    # p_train(y) = 2 y on [0, 1] in 4,000 bins.
    edges = [k / 4000 for k in range(4001)]
    prior = GaussianMixture.from_histogram(Histogram(edges, [2 * k + 1 for k in range(4000)]))
    b, p = 0.3, 0.4
    integral, _ = quad(lambda y: 2 * y * math.exp(-abs(y - p) / b) / (2 * b), 0, 1, points=[p])
    value = laplace_log_evidence(torch.tensor(p, dtype=torch.float64), prior, b)
    assert value.item() == pytest.approx(math.log(integral), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 65, 777])
@pytest.mark.parametrize("b", [1e-3, 0.3, 100.0])
def test_value_and_gradients_equal_all_pairs_in_float64(count, b):
    prior = random_masses(count)
    preds = torch.linspace(-3, 14, 507, dtype=torch.float64).view(3, 169)
    scale = torch.tensor(b, dtype=torch.float64)
    fast = gradients(lambda p, s: laplace_log_evidence(p, prior, s), preds, scale)
    slow = gradients(brute_force(prior), preds, scale)
    for got, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_predictions_100_scales_outside_keep_every_digit():
    prior, b = random_masses(300), 0.01
    preds = torch.tensor([-1000 * b, -100 * b, 10 + 100 * b, 10 + 1000 * b], dtype=torch.float64)
    scale = torch.tensor(b, dtype=torch.float64)
    fast = gradients(lambda p, s: laplace_log_evidence(p, prior, s), preds, scale)
    for got, expected in zip(fast, gradients(brute_force(prior), preds, scale), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    assert torch.isfinite(laplace_log_evidence(preds.float() * 1e5, prior, 1e-3)).all()


def test_empty_and_equal_masses_do_not_matter():
    prior = GaussianMixture(
        [0.0, 0.2, 0.3, 0.0, 0.5, 0.0], [-9.0, 2.0, 2.0, 5.0, 1.0, 99.0], [0.0] * 6
    )
    plain = GaussianMixture([0.5, 0.5], [1.0, 2.0], [0.0, 0.0])
    preds = torch.tensor([-20.0, 1.0, 1.5, 2.0, 7.0, 300.0], dtype=torch.float64)
    scale = torch.tensor(0.01, dtype=torch.float64)
    got = gradients(lambda p, s: laplace_log_evidence(p, prior, s), preds, scale)
    expected = gradients(brute_force(plain), preds, scale)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_single_label_has_no_gradient_where_it_is_predicted():
    prior = GaussianMixture([1.0], [3.0], [0.0])
    preds = torch.tensor([3.0], requires_grad=True)
    laplace_log_evidence(preds, prior, 1.0).sum().backward()
    assert preds.grad.item() == 0


@pytest.mark.parametrize("per_label", [False, True])
def test_gradcheck_of_the_balanced_l1_loss(per_label):
    family = LaplaceFamily()
    target = torch.tensor([0.4, 2.6, 7.7], dtype=torch.float64)
    preds = torch.tensor([1.1, 2.2, 8.9], dtype=torch.float64, requires_grad=True)
    shape = (3,) if per_label else ()
    sigma = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)

    def loss(p, s):
        return -family.log_density(p - target, s) + family.log_evidence(p, BINS, s)

    assert torch.autograd.gradcheck(loss, (preds, sigma))


def test_a_scale_per_label_equals_one_call_for_each():
    preds = torch.linspace(0, 8, 12, dtype=torch.float64).view(3, 4)
    scales = torch.linspace(0.1, 3, 12, dtype=torch.float64).view(3, 4)
    value = laplace_log_evidence(preds, BINS, scales)
    pairs = zip(preds.flatten(), scales.flatten(), strict=True)
    expected = torch.stack([laplace_log_evidence(p, BINS, s) for p, s in pairs])
    torch.testing.assert_close(value.flatten(), expected, rtol=1e-12, atol=1e-12)


def test_float32_is_float64_rounded():
    prior = random_masses(300)
    preds, b = torch.rand(2_001) * 14 - 2, torch.tensor(0.05)
    value, by_preds, by_scale = gradients(lambda p, s: laplace_log_evidence(p, prior, s), preds, b)
    exact = gradients(brute_force(prior), preds.double(), b.double())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(by_preds.double(), exact[1], rtol=1e-6, atol=2e-5)
    assert by_scale.item() == pytest.approx(exact[2].item(), rel=1e-6)


def test_a_scale_that_follows_the_prediction_is_tabulated_between_the_kinks(monkeypatch):
    def scale_of(preds: torch.Tensor) -> torch.Tensor:
        return (0.2 + 0.1 * preds.abs()).clamp(max=0.85)

    built = []
    build = piecewise.build
    monkeypatch.setattr(piecewise, "build", lambda *a: built.append(build(*a)) or built[-1])
    torch.manual_seed(0)
    preds = torch.rand(150_000) * 10 - 1
    got = gradients(
        lambda p, s: laplace_log_evidence(p, BINS, s, sigma_of=scale_of), preds, scale_of(preds)
    )
    assert built[-1] is not None
    wide = preds.double()
    for ours, theirs in zip(got, gradients(brute_force(BINS), wide, scale_of(wide)), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("budget", [1e-6, 1e-2, 1e6])
@pytest.mark.parametrize("per_label", [False, True])
def test_the_memory_budget_does_not_change_the_result(budget, per_label, monkeypatch):
    monkeypatch.setattr(point_masses, "CACHE_MB", 1e9)
    preds = torch.linspace(-1, 9, 1013, dtype=torch.float64)
    scale = torch.full_like(preds, 0.5) if per_label else 0.5
    value = laplace_log_evidence(preds, BINS, scale, memory_budget_mb=budget)
    expected = brute_force(BINS)(preds, torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_scans_of_many_masses_equal_a_loop():
    masses = point_masses.point_masses(random_masses(1000), torch.device("cpu"))
    b = torch.tensor(0.02, dtype=torch.float64)
    sums, means = laplace_evidence._decayed_sums(masses.weights, masses.locations, b)
    total, moment = 0.0, 0.0
    before = masses.locations[0].item()
    for k, (w, x) in enumerate(zip(*(part.tolist() for part in masses), strict=True)):
        gap = (x - before) / b.item()
        moment = math.exp(-gap) * (moment + gap * total)
        total = w + math.exp(-gap) * total
        before = x
        assert sums[k].item() == pytest.approx(total, rel=1e-12)
        assert means[k].item() == pytest.approx(moment / total, rel=1e-11, abs=1e-12)


@given(shape=st.lists(st.integers(0, 5), min_size=0, max_size=4))
@settings(max_examples=20, deadline=None)
def test_any_shape_is_elementwise(shape):
    preds = torch.rand(shape, dtype=torch.float64) * 8
    value = laplace_log_evidence(preds, BINS, 0.6)
    assert value.shape == preds.shape
    for p, v in zip(preds.flatten(), value.flatten(), strict=True):
        torch.testing.assert_close(laplace_log_evidence(p, BINS, 0.6), v)


def test_vectors_spread_components_and_wrong_scales_are_errors():
    family, sigma = LaplaceFamily(), torch.tensor(1.0)
    plane = GaussianMixture([1.0], [[0.0, 0.0]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="only the gaussian family balances vectors"):
        family.log_evidence(torch.zeros(3, 2), plane, sigma)
    with pytest.raises(ValueError, match="family='gaussian'"):
        family.log_evidence(torch.zeros(3), GaussianMixture([1.0], [0.0], [1.0]), sigma)
    with pytest.raises(ValueError, match="positive noise_sigma"):
        family.log_evidence(torch.zeros(3), BINS, -sigma)
    with pytest.raises(ValueError, match="one per label"):
        family.log_evidence(torch.zeros(3, 1), BINS, torch.ones(3))


@pytest.mark.parametrize("b", [1e-3, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("p", [-50.0, 0.7, 0.9, 4.0, 9.99, 10.5, 1000.0])
def test_the_readout_equals_quadrature(p, b):
    expected = noise_mean_on_range(p, b, (0.7, 10.0), None)
    got = truncated_laplace_mean(torch.tensor(p, dtype=torch.float64), b, (0.7, 10.0))
    assert got.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("b", [1e-3, 1.0, 1e3])
def test_the_readout_grows_with_the_location_and_stays_in_the_range(b):
    preds = torch.linspace(-3, 14, 10_001, dtype=torch.float64)
    means = truncated_laplace_mean(preds, b, (0.7, 10.0))
    assert (means.diff() >= -1e-12).all()
    assert ((means >= 0.7) & (means <= 10)).all()
    assert means.dtype == torch.float64
    per_label = truncated_laplace_mean(preds, torch.full_like(preds, b), (0.7, 10.0))
    torch.testing.assert_close(per_label, means)


def test_a_range_that_does_not_increase_is_an_error():
    with pytest.raises(ValueError, match="lo < hi"):
        truncated_laplace_mean(torch.zeros(1), 1.0, (1.0, 1.0))


@pytest.mark.parametrize("observed", [0.6, 2.5, 5.5, 7.4])
def test_balanced_l1_with_readout_recovers_the_balanced_posterior_mean(observed):
    # Labels on [0, 8], nine tenths of them near; a picture shows the label plus Laplace noise. The
    # best prediction p minimises the expected loss under p_train(y | observed).
    b, low, high, bins = 0.8, 0.0, 8.0, 1600
    centers = (torch.arange(bins, dtype=torch.float64) + 0.5) * (high - low) / bins + low
    density = 9 * torch.exp(-centers) + 0.1
    prior = GaussianMixture(density, centers, torch.zeros(bins))
    noise = torch.exp(-(centers - observed).abs() / b)
    posterior = density * noise / (density * noise).sum()

    grid = torch.linspace(low, high, 1601, dtype=torch.float64)
    family, scale = LaplaceFamily(), torch.tensor(b, dtype=torch.float64)
    data = -family.log_density(grid[:, None] - centers, scale) @ posterior
    expected_loss = data + family.log_evidence(grid, prior, scale)
    best = grid[expected_loss.argmin()]

    truth = noise_mean_on_range(observed, b, (low, high), None)
    assert family.readout(best, scale, (low, high)).item() == pytest.approx(truth, abs=0.01)
    unbalanced = centers[(posterior.cumsum(0) < 0.5).sum()]  # what plain L1 learns, the median
    assert abs(unbalanced.item() - truth) > 0.1
    if observed in (0.6, 7.4):
        assert abs(best.item() - truth) > 0.1  # the raw location misses it near the ends
