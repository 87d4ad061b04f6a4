"""The evidence kernel: exact sum, table, chunks, gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from depthbal.losses import family as family_module
from depthbal.losses import log_evidence
from depthbal.losses.families import build_family
from depthbal.losses.kernel import tables
from depthbal.priors import GaussianMixture
from tests.losses.checks import record_calls

PRIOR = GaussianMixture([0.5, 0.3, 0.15, 0.05], [1.5, 2.5, 5.0, 9.0], [0.3, 0.2, 1.0, 0.4])
POINTS = GaussianMixture([0.6, 0.3, 0.1], [1.0, 3.0, 9.0], [0.0, 0.0, 0.0])
SIGMAS = (float, torch.tensor, lambda sigma: torch.full((3,), sigma))


def naive(preds: torch.Tensor, prior: GaussianMixture, sigma: torch.Tensor) -> torch.Tensor:
    total = prior.variances + sigma**2
    log_normal = -0.5 * (preds[..., None] - prior.means) ** 2 / total
    return torch.logsumexp(
        prior.weights.log() + log_normal - 0.5 * torch.log(2 * math.pi * total), dim=-1
    )


def gradients(function, preds: torch.Tensor, sigma: float):
    preds = preds.clone().requires_grad_()
    noise = torch.tensor(sigma, dtype=preds.dtype, requires_grad=True)
    value = function(preds, noise)
    # One weight per entry, of either sign, so that the sums cannot hide a wrong entry.
    weights = torch.where(torch.arange(value.numel()) % 3 == 0, -1.0, 2.0).view_as(value)
    grads = torch.autograd.grad((value * weights).sum(), (preds, noise))
    return value.detach(), *grads


@pytest.mark.parametrize("p", [-3.0, 1.7, 12.0])
def test_equals_numerical_integration_over_the_mixture(p):
    def integrand(y: float) -> float:
        density = PRIOR.log_density(torch.tensor(y)).exp().item()
        return density * math.exp(-0.5 * ((y - p) / 0.7) ** 2) / (0.7 * math.sqrt(2 * math.pi))

    integral, _ = quad(integrand, -10, 20, points=[1.5, 2.5, 5.0, 9.0], epsabs=1e-14, limit=400)
    value = log_evidence(torch.tensor(p, dtype=torch.float64), PRIOR, 0.7).item()
    assert value == pytest.approx(math.log(integral), abs=1e-8)


@pytest.mark.parametrize("prior", [PRIOR, POINTS])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 100.0])
def test_value_and_gradients_equal_the_naive_formula_in_float64(prior, sigma):
    preds = torch.linspace(-2, 12, 507, dtype=torch.float64).view(3, 169)
    fast = gradients(lambda p, s: log_evidence(p, prior, s), preds, sigma)
    slow = gradients(lambda p, s: naive(p, prior, s), preds, sigma)
    for got, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * expected.abs().max())


@given(shape=st.lists(st.integers(1, 7), max_size=4), sigma=st.floats(1e-2, 50), each=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_shape_with_one_sigma_or_one_each_is_elementwise(shape, sigma, each):
    preds = torch.rand(shape, dtype=torch.float64) * 10
    sigmas = sigma * (1 + torch.rand_like(preds) * each)
    value = log_evidence(preds, PRIOR, sigmas if each else sigma)
    assert value.shape == preds.shape
    pairs = zip(preds.flatten(), sigmas.flatten(), strict=True)
    one_by_one = [log_evidence(p, PRIOR, s) for p, s in pairs]
    torch.testing.assert_close(value.flatten(), torch.stack(one_by_one))


# Point masses 120 sigma apart are left out: there float32 itself, not the table, sets the error.
@pytest.mark.parametrize(
    ("prior", "sigma"),
    [(PRIOR, 0.05), (PRIOR, 1.0), (PRIOR, 10.0), (POINTS, 0.5), (POINTS, 1.0), (POINTS, 10.0)],
)
def test_the_table_is_within_its_tolerance_of_float64(prior, sigma):
    torch.manual_seed(0)
    preds = torch.rand(2, 150_001) * 14 - 2
    value, by_preds, by_sigma = gradients(lambda p, s: log_evidence(p, prior, s), preds, sigma)
    exact = gradients(lambda p, s: log_evidence(p, prior, s), preds.double(), sigma)
    size = exact[0].abs().clamp(min=1)
    assert ((value - exact[0]).abs() / size).max() < 1e-5
    error = (by_preds - exact[1]).abs() * sigma
    assert (error / (exact[1] * sigma).abs().clamp(min=1)).max() < 2e-5
    assert by_sigma.item() == pytest.approx(exact[2].item(), rel=1e-5)


@pytest.fixture
def built(monkeypatch) -> list:
    return record_calls(monkeypatch, tables, "build")


def test_the_table_is_used_for_many_predictions_and_refused_for_few(built):
    log_evidence(torch.rand(300_000), PRIOR, 1.0)
    assert built.pop() is not None
    log_evidence(torch.rand(1000), PRIOR, 1.0)
    assert not built


FAR = [-1e7, -300.0, 19.0, 60.0, 1e4, 3e9]


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "huber", "student"])
@pytest.mark.parametrize("count", [93, 3000])
def test_far_predictions_need_few_exact_sums_and_have_exact_values(kind, count, monkeypatch):
    """One at 300 m once made a step of BMC 230 times as slow."""
    family, sigma = build_family(kind, 1.0, 3.0), 0.3
    means = torch.linspace(1, 9, count, dtype=torch.float64)
    prior = GaussianMixture(means**-1.5, means, torch.zeros(count))

    def value_and_slope(preds):
        leaf = preds.clone().requires_grad_()
        value = family.log_evidence(leaf, prior, sigma)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        return torch.stack([value.detach(), slope * sigma])[:, -1006:]

    sums = record_calls(monkeypatch, family_module, "exact_evidence")
    preds = torch.cat([torch.rand(400_000) * 12 - 1, torch.tensor(FAR)])
    found = value_and_slope(preds)
    assert sum(len(each.value) for each in sums) < len(preds) / 5
    exact = value_and_slope(preds[-1006:].double())
    atol = 1e-4 if kind == "huber" else 2e-5  # whose kinks are many
    torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=atol)


@pytest.mark.parametrize(
    ("shape", "sigma", "message"),
    [
        *(((3,), make(0.0), "positive noise_sigma") for make in SIGMAS),
        ((3, 2), torch.ones(2), "one per label"),
    ],
)
def test_wrong_sigmas_are_errors_and_nothing_is_broadcast(shape, sigma, message):
    with pytest.raises(ValueError, match=message):
        log_evidence(torch.zeros(shape), PRIOR, sigma)


def test_a_sigma_that_follows_the_prediction_can_be_tabulated(built):
    def sigma_of(preds: torch.Tensor) -> torch.Tensor:
        return 0.2 + 0.1 * torch.nn.functional.softplus(preds)

    preds = torch.rand(300_000) * 10
    value = log_evidence(preds, PRIOR, sigma_of(preds), sigma_of=sigma_of)
    assert built[-1] is not None
    expected = log_evidence(preds.double(), PRIOR, sigma_of(preds.double()))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
