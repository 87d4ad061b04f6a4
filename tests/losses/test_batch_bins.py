"""Bins of scalar targets: moments, merging, and the promised error of the evidence."""

import numpy as np
import pytest
import torch

from depthbal.losses import log_evidence
from depthbal.losses.batch import Grouping, batch_prior, equal_targets
from depthbal.losses.bins import Grid, merged_groups
from depthbal.losses.families import GaussianFamily

TOLERANCE = 1e-5


def cell_width(sigma, tolerance):
    return GaussianFamily().cell_width(sigma, tolerance)


def occupied_cells(moments):
    cell = moments[0].nonzero().flatten()
    return cell, moments[:, cell]


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


def test_moments_are_those_of_numpy_over_batches_masks_and_ends():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 11, 70_001)
    counted = rng.uniform(size=70_001) < 0.7
    grid = Grid(0.0, 0.5, 20)
    ours = grid.moments(torch.tensor(values[:999]), torch.tensor(counted[:999]))
    ours += grid.moments(torch.tensor(values[999:]), torch.tensor(counted[999:]))
    cell = np.clip(np.floor(values / 0.5), 0, 19).astype(int)
    offset = values / 0.5 - cell - 0.5
    for order in range(5):
        weights = counted * offset**order
        expected = np.bincount(cell, weights=weights, minlength=20)
        np.testing.assert_allclose(ours[order], expected, rtol=1e-9, atol=1e-9)


def test_sparse_and_dense_cells_agree():
    values = torch.rand(999, dtype=torch.float64) * 10
    grid = Grid(0.0, 0.01, 1001)
    cell, moments = occupied_cells(grid.moments(values))
    sparse_cell, sparse = grid.sparse_moments(values)
    assert cell.tolist() == sparse_cell.tolist()
    torch.testing.assert_close(moments, sparse)


def test_merging_keeps_count_mean_and_variance_and_makes_even_targets_few():
    target = torch.linspace(0, 50, 200_000, dtype=torch.float64)
    width = cell_width(1.0, TOLERANCE)
    grid = Grid(0.0, width, int(50 / width) + 1)
    cell, moments = occupied_cells(grid.moments(target))
    groups = merged_groups(grid, cell, moments, 1.0, TOLERANCE)
    assert len(groups.counts) < 0.3 * len(cell)
    share = groups.counts / len(target)
    mean = (share * groups.means).sum()
    variance = (share * (groups.variances + (groups.means - mean) ** 2)).sum()
    torch.testing.assert_close(mean, target.mean())
    torch.testing.assert_close(variance, target.var(correction=0))


def test_cells_next_to_long_gaps_and_ends_are_not_merged():
    target = torch.cat([torch.linspace(0, 30, 90_001), torch.linspace(100, 130, 90_001)]).double()
    groups, _ = batch_prior(target, None, torch.tensor(1.0), Grouping(method="binned"))
    width = cell_width(1.0, TOLERANCE)
    spread = groups.variances.sqrt()
    for edge in (0, 30, 100, 130):
        next_to_edge = (groups.means - edge).abs() < 0.19
        assert spread[next_to_edge].max() < 0.3 * width
    assert spread.max() > 0.9 * width


def test_small_sigma_does_not_make_as_many_groups_as_pixels():
    target = 0.7 + 9.3 * torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    groups, _ = batch_prior(target, None, torch.tensor(0.1), Grouping())
    assert len(groups.counts) < 12_000
