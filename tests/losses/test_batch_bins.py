"""Bins of scalar targets: the promised error of the evidence, and how few they are."""

import pytest
import torch

from depthbal.losses import log_evidence
from depthbal.losses.batch import Grouping, batch_prior, equal_targets
from depthbal.losses.families import GaussianFamily

TOLERANCE = 1e-5


def cell_width(sigma, tolerance):
    return GaussianFamily().cell_width(sigma, tolerance)


def uniform(count, generator):
    return torch.rand(count, generator=generator, dtype=torch.float64)


def worst(generator):
    """Two values in every cell in the shares that make the third moment largest."""
    start = cell_width(1.0, TOLERANCE) * torch.arange(1200, dtype=torch.float64)
    return torch.cat([(start + 1e-4).repeat(79), (start + 0.0065).repeat(21)])


CASES = {
    "even": lambda g: 0.7 + 9.3 * uniform(20_000, g),
    "long tail": lambda g: 0.7 + 9.3 * uniform(20_000, g) ** 4,
    "8 bits": lambda g: (255 * uniform(20_000, g)).round() / 25.5,
    "few": lambda g: 9 * uniform(700, g),
    "a gap": lambda g: torch.cat([uniform(9000, g), 13 + uniform(9000, g)]),
    "one at 10 km": lambda g: torch.cat([uniform(9000, g), torch.full((1,), 1e4).double()]),
    "worst": worst,
    "worst, and one 6 m away": lambda g: torch.cat([worst(g), torch.full((1,), -6.0).double()]),
}


def curves(preds, prior, sigma):
    """log E, sigma dlogE/dp and sigma dlogE/dsigma."""
    preds = preds.clone().requires_grad_()
    noise = torch.full_like(preds, sigma).requires_grad_()
    value = log_evidence(preds, prior, noise)
    value.sum().backward()
    return torch.stack([value.detach(), preds.grad * sigma, noise.grad * sigma])


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("name", CASES)
def test_the_evidence_of_bins_stays_within_the_tolerance(name, sigma):
    """Absolute with a target within 6 sigma, relative to log E and its slopes up to 1,000."""
    generator = torch.Generator().manual_seed(0)
    target = CASES[name](generator)
    groups, _ = batch_prior(target, None, torch.tensor(sigma), Grouping(method="binned"))
    exact = equal_targets(target)
    assert groups.counts.sum() == len(target)
    assert len(groups.counts) <= len(exact.counts)
    low, high = target.min(), target.max()
    chosen = target[torch.randint(len(target), (60,), generator=generator)]
    near = chosen + 6 * sigma * (2 * uniform(60, generator) - 1)
    near = torch.cat([near, torch.stack([low - 6 * sigma, high + 6 * sigma])])
    error = curves(near, groups.mixture(), sigma) - curves(near, exact.mixture(), sigma)
    assert error.abs().max() < TOLERANCE

    outside = sigma * torch.tensor([10.0, 30.0, 100.0, 1000.0], dtype=torch.float64)
    far = torch.cat([high + outside, low - outside, torch.linspace(low, high, 30).double()])
    far = far[(far[:, None] - exact.means).abs().amin(1) <= 1000.1 * sigma]
    truth = curves(far, exact.mixture(), sigma)
    error = (curves(far, groups.mixture(), sigma) - truth).abs()
    distance = (far[:, None] - exact.means).abs().amin(1) / sigma
    size = torch.stack([distance**2 / 2, distance, distance**2]).clamp(min=1)
    assert (error / size).max() < TOLERANCE


@pytest.mark.parametrize(("sigma", "most"), [(0.1, 12_000), (1.0, 1_200)])
def test_groups_are_few_also_where_sigma_is_small(sigma, most):
    target = 0.7 + 9.3 * torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    groups, _ = batch_prior(target, None, torch.tensor(sigma), Grouping())
    assert len(groups.counts) < most
