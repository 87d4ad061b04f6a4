"""The exact sums: blocks, memory, derivatives that nobody needs."""

import math

import pytest
import torch
from measuring import peak_mib

from depthbal.losses import log_evidence
from depthbal.losses.kernel import evidence
from depthbal.losses.kernel.evidence import Components, exact_evidence
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
