"""Noise families, the normal one too: evidence, its tables, the loss over it, and the read-out."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from depthbal.losses import BNILoss, log_evidence, tables, truncated_normal_mean
from depthbal.losses import family as family_module
from depthbal.losses.families import HuberFamily, LaplaceFamily, StudentFamily, build_family
from depthbal.losses.family import NoiseFamily
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import record_calls
from tests.reference import noise_energy, noise_log_evidence, noise_mean_on_range

COUNTS = [50, 30, 12, 5, 2, 1, 0, 3]
BINS = GaussianMixture.from_histogram(Histogram([float(edge) for edge in range(9)], COUNTS))
MIXTURE = GaussianMixture([0.5, 0.3, 0.15, 0.05], [1.5, 2.5, 5.0, 9.0], [0.3, 0.2, 1.0, 0.4])
RANGE = (0.7, 10.0)
SHAPES = [
    ("laplace", None),
    *(("huber", delta) for delta in (0.01, 1.0, 30.0)),
    *(("student", df) for df in (0.5, 40.0)),
]
TYPICAL = [("laplace", None), ("huber", 0.9), ("student", 3.0)]
every_family = pytest.mark.parametrize(("kind", "shape"), SHAPES)
typical = pytest.mark.parametrize(("kind", "shape"), TYPICAL)
with_gaussian = pytest.mark.parametrize(("kind", "shape"), [("gaussian", None), *TYPICAL])


def double(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def family_of(kind: str, shape: float | None) -> NoiseFamily:
    return build_family(kind, shape or 1.0, shape or 1.0)


def log_density(family: NoiseFamily, residual, sigma) -> torch.Tensor:
    return -family.energy(residual, sigma) - family.log_normaliser(sigma)


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


def evidence_of(family: NoiseFamily, prior: GaussianMixture, preds, sigma, **options):
    """Value and gradients of the evidence."""
    return gradients(lambda p, s: family.log_evidence(p, prior, s, **options), preds, sigma)


def brute_force(prior: GaussianMixture, kind: str, shape: float | None):
    parts = prior.weights, prior.means
    variances = prior.variances if kind == "gaussian" else None
    return lambda p, s: noise_log_evidence(p, *parts, s, kind, shape, variances)


@pytest.fixture
def built(monkeypatch) -> list:
    """The tables that are made."""
    return record_calls(monkeypatch, tables, "build", "build_between")


@every_family
@pytest.mark.parametrize("sigma", [1e-2, 0.5, 2.0, 100.0])
def test_the_density_integrates_to_1_and_is_that_of_the_slow_twin(kind, shape, sigma):
    family, scale = family_of(kind, shape), double(sigma)
    residuals = torch.linspace(-9, 9, 101, dtype=torch.float64)
    energies = [noise_energy(r, sigma, kind, shape) for r in residuals.tolist()]
    torch.testing.assert_close(family.energy(residuals, scale), torch.tensor(energies).double())

    def density(log_r: float) -> float:
        r = math.exp(log_r)
        return r * log_density(family, double(r), scale).exp().item()

    # A Student's t with half a degree of freedom has a tail that reaches far indeed.
    ends = [math.log(sigma) + step for step in (-40, -10, -4, -2, 0, 2, 4, 8, 16, 32, 64)]
    half = sum(quad(density, a, b, limit=200)[0] for a, b in itertools.pairwise(ends))
    assert 2 * half == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "prior"),
    [
        *((*one, random_masses(count)) for one in SHAPES for count in (1, 8, 65, 777)),
        *(("gaussian", None, prior) for prior in (MIXTURE, BINS, random_masses(777))),
    ],
)
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 100.0])
def test_value_and_gradients_equal_all_pairs_in_float64(kind, shape, prior, sigma):
    preds = torch.linspace(-3, 14, 507, dtype=torch.float64).view(3, 169)
    fast = evidence_of(family_of(kind, shape), prior, preds, double(sigma))
    slow = gradients(brute_force(prior, kind, shape), preds, double(sigma))
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@given(shape=st.lists(st.integers(1, 7), max_size=4), sigma=st.floats(1e-2, 50), each=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_shape_with_one_sigma_or_one_each_is_elementwise(shape, sigma, each):
    preds = torch.rand(shape, dtype=torch.float64) * 10
    sigmas = sigma * (1 + torch.rand_like(preds) * each)
    value = log_evidence(preds, MIXTURE, sigmas if each else sigma)
    assert value.shape == preds.shape
    pairs = zip(preds.flatten(), sigmas.flatten(), strict=True)
    one_by_one = [log_evidence(p, MIXTURE, s) for p, s in pairs]
    torch.testing.assert_close(value.flatten(), torch.stack(one_by_one))


@typical
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_masked_loss_and_its_gradients_equal_the_slow_twin(kind, shape, dtype):
    generator = torch.Generator().manual_seed(0)
    target = 8 * torch.rand(3, 83, generator=generator, dtype=torch.float64).to(dtype)
    preds = (target + torch.randn(3, 83, generator=generator)).to(dtype)
    mask = torch.rand(3, 83, generator=generator) < 0.6
    options = {"huber_delta": shape, "student_df": shape} if shape else {}
    options |= {"noise": "learned", "init_noise_sigma": 0.8, "scale": "none"}
    loss = BNILoss(BINS, family=kind, **options)
    leaf = torch.where(mask, preds, torch.nan).requires_grad_()
    value = loss.double()(leaf, target, mask)
    value.backward()
    wide, labels = preds[mask].double().requires_grad_(), target[mask].double()
    log_sigma = loss.noise_sigma.log().requires_grad_()
    sigma, one = log_sigma.exp(), torch.ones(1)
    data = noise_log_evidence(wide, one, labels[:, None], sigma, kind, shape)
    expected = (brute_force(BINS, kind, shape)(wide, sigma) - data).mean()
    expected.backward()
    rtol = 1e-9 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(value.double(), expected, rtol=rtol, atol=rtol)
    coarse = max(rtol, 2 * torch.finfo(dtype).eps) if dtype == torch.bfloat16 else rtol
    torch.testing.assert_close(leaf.grad[mask].double(), wide.grad, rtol=coarse, atol=rtol)
    torch.testing.assert_close(
        loss.noise.log_sigma.grad.double(), log_sigma.grad, rtol=10 * rtol, atol=10 * rtol
    )
    assert (leaf.grad[~mask] == 0).all()


@pytest.mark.parametrize("sigma", [0.05, 1.0, 10.0])
@pytest.mark.parametrize(
    ("family", "tolerance"), [(HuberFamily(1000.0), 1e-9), (StudentFamily(1e10), 2e-6)]
)
def test_a_large_delta_or_many_degrees_of_freedom_are_gaussian_noise(sigma, family, tolerance):
    preds = torch.linspace(-3, 12, 101, dtype=torch.float64)
    scale = double(sigma)
    got = evidence_of(family, BINS, preds, scale)
    expected = gradients(lambda p, s: log_evidence(p, BINS, s), preds, scale)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=10 * tolerance)
    means = family.readout(preds, scale, (0.0, 8.0))
    gaussian = truncated_normal_mean(preds, sigma, (0.0, 8.0))
    torch.testing.assert_close(means, gaussian, rtol=0, atol=max(1e-8, tolerance))


# ---- tables ----


# 0.05 beside bins of 1 m: between the bins hardly any mass counts but the two next to p. Of normal
# noise that is left out, for there float32 itself, not the table, sets the error.
@pytest.mark.parametrize(
    ("prior", "sigma", "kind", "shape"),
    [
        *((MIXTURE, s, "gaussian", None) for s in (0.05, 1.0, 10.0)),
        *((BINS, s, "gaussian", None) for s in (0.5, 1.0, 10.0)),
        *((BINS, s, "huber", d) for s, d in ((0.05, 0.1), (1.0, 0.5), (1.0, 3.0), (10.0, 1.0))),
        *((random_masses(100), s, "huber", d) for s, d in ((0.3, 0.3), (1.0, 2.0))),
        *((BINS, s, "student", df) for s, df in ((0.05, 3.0), (1.0, 1.0), (10.0, 3.0))),
        (random_masses(100), 0.3, "student", 30.0),
    ],
)
def test_the_table_is_within_its_tolerance_of_float64(
    prior, sigma, kind, shape, built, monkeypatch
):
    monkeypatch.setattr(family_module, "TABULATE_PAIRS", 1)
    torch.manual_seed(0)
    preds, family = torch.rand(2, 30_001) * 14 - 2, family_of(kind, shape)
    value, by_preds, by_sigma = evidence_of(family, prior, preds, torch.tensor(sigma))
    assert built[-1] is not None
    expected = gradients(brute_force(prior, kind, shape), preds.double(), double(sigma))
    signs = torch.where(torch.arange(preds.numel()) % 3 == 0, -1.0, 2.0).view_as(preds)
    assert ((value - expected[0]).abs() / expected[0].abs().clamp(min=1)).max() < 1.1e-5
    slope_error = ((by_preds - expected[1]) / signs * sigma).abs()
    assert (slope_error / (expected[1] * sigma).abs().clamp(min=1)).max() < 1.1e-5
    assert by_sigma.item() == pytest.approx(expected[2].item(), rel=1e-5)


@with_gaussian
def test_a_scale_that_follows_the_prediction_is_tabulated_where_predictions_are_many(
    kind, shape, built
):
    def sigma_of(preds: torch.Tensor) -> torch.Tensor:
        return (0.2 + 0.1 * preds.abs()).clamp(max=0.85)

    torch.manual_seed(0)
    preds, family = torch.rand(150_000) * 10 - 1, family_of(kind, shape)
    family.log_evidence(preds[:1000], BINS, sigma_of(preds[:1000]), sigma_of=sigma_of)
    assert not built
    got = evidence_of(family, BINS, preds, sigma_of(preds), sigma_of=sigma_of)
    assert built[-1] is not None
    wide = preds.double()
    expected = gradients(brute_force(BINS, kind, shape), wide, sigma_of(wide))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("b", [0.01, 0.05])
def test_laplace_in_float32_is_float64_rounded_and_keeps_every_digit_far_outside(b):
    prior, family = random_masses(300), LaplaceFamily()
    preds = torch.rand(20_001) * 14 - 2
    got = evidence_of(family, prior, preds, torch.tensor(b))
    expected = gradients(brute_force(prior, "laplace", None), preds.double(), double(b))
    assert got[0].dtype == torch.float32
    torch.testing.assert_close(got[0].double(), expected[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[1].double(), expected[1], rtol=1e-6, atol=1e-6 / b)
    assert got[2].item() == pytest.approx(expected[2].item(), rel=1e-5)
    far = double([-1000 * b, -100 * b, 10 + 100 * b, 10 + 1000 * b])
    expected = gradients(brute_force(prior, "laplace", None), far, double(b))
    got = evidence_of(family, prior, far, double(b))
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    assert torch.isfinite(family.log_evidence(far.float() * 1e5, prior, 1e-3)).all()


@every_family
def test_empty_and_equal_masses_do_not_matter(kind, shape):
    places = [-9.0, 2.0, 2.0, 5.0, 1.0, 99.0]
    prior = GaussianMixture([0.0, 0.2, 0.3, 0.0, 0.5, 0.0], places, [0.0] * 6)
    plain = GaussianMixture([0.5, 0.5], [1.0, 2.0], [0.0, 0.0])
    preds = double([-20.0, 1.0, 1.5, 2.0, 7.0, 300.0])
    got = evidence_of(family_of(kind, shape), prior, preds, double(0.01))
    expected = gradients(brute_force(plain, kind, shape), preds, double(0.01))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


PLANE = GaussianMixture([1.0], [[0.0, 0.0]], [[0.0, 0.0]])
SPREAD = GaussianMixture([1.0], [0.0], [1.0])


@pytest.mark.parametrize(
    ("kinds", "preds", "prior", "sigma", "message"),
    [
        (TYPICAL, (3, 2), PLANE, 1.0, "only the gaussian family balances vectors"),
        (TYPICAL, (3,), SPREAD, 1.0, "family='gaussian'"),
        (SHAPES, (3,), BINS, 0.0, "positive noise_sigma"),
        (SHAPES, (3,), BINS, torch.full((3,), -1.0), "positive noise_sigma"),
        (SHAPES, (3, 2), BINS, torch.ones(2), "one per label"),
    ],
)
def test_vectors_spread_components_and_wrong_scales_are_errors(kinds, preds, prior, sigma, message):
    for one in kinds if kinds is TYPICAL else [("gaussian", None), *kinds]:
        with pytest.raises(ValueError, match=message):
            family_of(*one).log_evidence(torch.zeros(preds), prior, sigma)


# ---- read-out ----


@every_family
@pytest.mark.parametrize("sigma", [1e-3, 0.05, 1.0, 100.0])
def test_the_readout_equals_quadrature(kind, shape, sigma):
    family, scale = family_of(kind, shape), double(sigma)
    for p in (-50.0, 0.3, 0.7, 0.9, 5.0, 9.99, 10.2, 1000.0):
        expected = noise_mean_on_range(p, sigma, RANGE, kind, shape)
        got = family.readout(double(p), scale, RANGE)
        assert got.item() == pytest.approx(expected, abs=1e-8), p


@typical
@pytest.mark.parametrize("sigma", [0.02, 1.0, 50.0])
def test_many_locations_are_read_out_by_a_table_within_its_tolerance(kind, shape, sigma, built):
    family, scale = family_of(kind, shape), torch.tensor(sigma)
    preds = torch.rand(70_001, generator=torch.Generator().manual_seed(0)) * 14 - 2
    means = family.readout(preds, scale, RANGE)
    assert built[-1] is not None
    expected = family.readout(preds[::50].double(), scale.double(), RANGE)
    assert means.dtype == torch.float32
    assert (means[::50] - expected).abs().max() < 1e-6 * (RANGE[1] - RANGE[0])


@pytest.mark.parametrize("observed", [0.6, 2.5, 5.5, 7.4])
@pytest.mark.parametrize(("kind", "shape"), [("laplace", None), ("huber", 1.2), ("student", 5.0)])
def test_the_balanced_loss_with_readout_recovers_the_balanced_posterior_mean(kind, shape, observed):
    """Labels on [0, 8], nine tenths of them near; a picture shows the label plus noise. The best
    prediction p minimises the expected loss under p_train(y | observed)."""
    sigma, low, high, bins = 0.8, 0.0, 8.0, 800
    centers = (torch.arange(bins, dtype=torch.float64) + 0.5) * (high - low) / bins + low
    density = 9 * torch.exp(-centers) + 0.1
    prior = GaussianMixture(density, centers, torch.zeros(bins))
    family, scale = family_of(kind, shape), double(sigma)
    posterior = density * log_density(family, centers - observed, scale).exp()
    posterior = posterior / posterior.sum()
    grid = torch.linspace(low - 2, high + 2, 1201, dtype=torch.float64)
    data = -log_density(family, grid[:, None] - centers, scale) @ posterior
    best = grid[(data + family.log_evidence(grid, prior, scale)).argmin()]
    truth = noise_mean_on_range(observed, sigma, (low, high), kind, shape)
    # Beyond the ends Laplace noise has many such locations, which all read out alike.
    assert family.readout(best, scale, (low, high)).item() == pytest.approx(truth, abs=0.015)
    unbalanced = centers[(posterior.cumsum(0) < 0.5).sum()]  # what plain L1 learns, the median
    assert abs(unbalanced.item() - truth) > 0.05
