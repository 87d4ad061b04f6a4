"""The evidence: exact sums in blocks, their memory, and cubic tables of smooth functions."""

import math

import pytest
import torch
from measuring import peak_mib

from depthbal.losses import evidence, log_evidence, tables
from depthbal.losses.evidence import Components, exact_evidence
from depthbal.losses.tables import build, build_between, interpolate
from depthbal.priors import GaussianMixture
from tests.losses.checks import kept_numbers

MIXTURE = Components(
    torch.tensor([0.5, 0.3, 0.15, 0.05]).double().log(),
    torch.tensor([1.5, 2.5, 5.0, 9.0]).double(),
    torch.tensor([0.3, 0.0, 1.0, 0.4]).double(),
)


def vectors() -> Components:
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(4, 3, 3, generator=generator, dtype=torch.float64))[0]
    means = 3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return Components(MIXTURE.log_weights, means, means.abs(), axes)


def example(kind: str):
    """Return predictions, sigma and mixture."""
    preds = torch.linspace(-5, 15, 39, dtype=torch.float64)
    sigma = torch.linspace(0.2, 2, 39).double() if kind == "one sigma each" else torch.tensor(0.5)
    if kind == "vectors":
        return preds.view(13, 3), sigma.double(), vectors()
    return preds, sigma.double(), MIXTURE


@pytest.mark.parametrize("numbers", [1, 64, 10**9])
@pytest.mark.parametrize("kind", ["scalars", "one sigma each", "vectors"])
def test_the_size_of_a_block_does_not_matter(numbers, kind, monkeypatch):
    monkeypatch.setattr(evidence, "CACHE_NUMBERS", 2**17)
    expected = exact_evidence(*example(kind))
    monkeypatch.setattr(evidence, "CACHE_NUMBERS", numbers)
    torch.testing.assert_close(exact_evidence(*example(kind)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("budget", [0.5, 4.0])
@pytest.mark.parametrize("kind", ["scalars", "vectors", "diagonal vectors"])
def test_ten_temporaries_of_a_block_are_alive_at_most(kind, budget, monkeypatch):
    monkeypatch.setattr(evidence, "CACHE_NUMBERS", int(budget * 2**20 / 40))
    labels, event = (20_000, ()) if kind == "scalars" else (7_000, (3,))
    preds, sigma = torch.rand(labels, *event), torch.rand(labels) + 0.5
    axes = torch.eye(3).expand(500, 3, 3) if kind == "vectors" else None
    parts = torch.rand(500, *event), torch.rand(500, *event)  # 38 MiB a matrix
    results = (2 * labels + preds.numel()) * 4 / 2**20
    mixture = Components(torch.zeros(500), *parts, axes)
    peak = peak_mib(lambda: exact_evidence(preds, sigma, mixture), "cpu")
    assert 0.3 * budget < peak - results < budget


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("labels", [300_001, 5_001])
def test_only_derivatives_that_are_needed_are_kept_for_the_backward_pass(labels, learned):
    prior = GaussianMixture(MIXTURE.log_weights.exp(), MIXTURE.means, MIXTURE.variances)
    sigma = torch.tensor(1.0, requires_grad=learned)
    preds = torch.rand(labels, requires_grad=True)
    kept = [size for size in kept_numbers(lambda: log_evidence(preds, prior, sigma)) if size > 1]
    assert kept == [labels] * (1 + learned)
    with torch.no_grad():
        assert kept_numbers(lambda: log_evidence(preds, prior, sigma)) == []


def test_a_sum_of_a_million_terms_loses_no_digits_in_float32():
    """One point mass repeated: the sum must be that of one normal of weight 1."""
    count = 10**6
    weights, means = torch.full((count,), -math.log(count)), torch.full((count,), 3.0)
    mixture = Components(weights, means, torch.zeros(count))
    preds, sigma = torch.tensor([2.5, 7.0]), 1.3
    value, by_preds, by_sigma = exact_evidence(preds, torch.tensor(sigma), mixture)
    distance = (3.0 - preds).double()
    expected = -0.5 * (distance / sigma) ** 2
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(by_preds.double(), distance / sigma**2, rtol=1e-6, atol=0)
    expected = distance**2 / sigma**3
    torch.testing.assert_close(by_sigma.double(), expected, rtol=1e-6, atol=0)


# ---- tables ----

TOLERANCE = torch.tensor([[1e-6]], dtype=torch.float64)
LIMITS = TOLERANCE.expand(3, 1)


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.sin(), 3 * (x / 2).cos(), x.exp() / 20])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolates_every_curve_within_the_tolerance(dtype):
    table = build(waves, 0.0, 3.0, 1.0, 1000, LIMITS)
    arguments = torch.linspace(0, 3, 4001, dtype=dtype)
    got = interpolate(table, arguments)
    for curve, expected in zip(got, waves(arguments.double()), strict=True):
        assert curve.dtype == dtype
        torch.testing.assert_close(curve.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "high", "max_cells", "tolerance"),
    [
        (waves, 3.0, 10, 1e-6),  # too few arguments for it to pay
        (waves, 1e9, 10**9, 1e-6),  # too large
        (waves, math.inf, 10**9, 1e-6),
        (waves, math.nan, 10**9, 1e-6),
        (waves, 3.0, 1000, 1e-12),  # not exact enough
        (lambda x: torch.where(x > 2.5, torch.nan, waves(x)), 3.0, 1000, 1.0),
    ],
)
def test_there_is_no_table_where_it_would_not_pay_or_not_be_exact(
    function, high, max_cells, tolerance
):
    limits = torch.full((3, 1), tolerance, dtype=torch.float64)
    assert build(function, 0.0, high, 1.0, max_cells, limits) is None


def test_curves_do_not_keep_each_other_alive():
    table = build(waves, 0.0, 3.0, 1.0, 1000, LIMITS)
    for curve in interpolate(table, torch.rand(tables.CACHE_ARGUMENTS + 3)):
        assert curve.untyped_storage().nbytes() == curve.numel() * curve.element_size()


@pytest.mark.parametrize(
    ("function", "high"),
    [
        (lambda x: (1000 * x).sin()[None], 1),  # too many cells
        (lambda x: x[None] * torch.nan, 1),
        (lambda x: x[None], 0),  # no width
    ],
)
def test_too_many_cells_and_nan_refuse_a_table_between_edges(function, high):
    assert build_between(function, torch.tensor([0.0, high]).double(), 50, TOLERANCE) is None


def test_a_jump_costs_a_few_cells_and_only_what_float32_cannot_tell_from_it_is_wrong():
    table = build_between(
        lambda x: (x > 0.3).double()[None], torch.tensor([0.0, 1.0, 1e6]).double(), 200, TOLERANCE
    )
    arguments = torch.cat([torch.rand(1000) * 1e6, 0.3 + torch.linspace(-1, 1, 1001)])
    arguments = arguments[(arguments - 0.3).abs() > 1e-6]
    (found,) = interpolate(table, arguments)
    torch.testing.assert_close(found, (arguments > 0.3).float(), rtol=0, atol=2e-6)
