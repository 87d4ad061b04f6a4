import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from depthbal.errors import ConfigError
from depthbal.exporting import ReadoutTable
from depthbal.losses import DepthNoise, GAILoss
from depthbal.losses.readout import truncated_normal_mean

RANGE = (0.7, 10.0)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_the_table_is_the_mean_of_the_truncated_normal(sigma):
    table = ReadoutTable(lambda p: truncated_normal_mean(p, sigma, RANGE), RANGE)
    p = np.linspace(-3.0, 14.0, 700)
    expected = truncnorm.mean((RANGE[0] - p) / sigma, (RANGE[1] - p) / sigma, loc=p, scale=sigma)
    assert np.abs(table(torch.from_numpy(p)).numpy() - expected).max() < 1.5e-4


@pytest.mark.parametrize("p", [-1e12, -1e6, -300.0, 300.0, 1e6, 1e12])
def test_far_beyond_the_range_the_table_goes_to_its_ends(p):
    table = ReadoutTable(lambda x: truncated_normal_mean(x, 1.0, RANGE), RANGE)
    place = torch.tensor([p])
    expected = truncated_normal_mean(place.double(), 1.0, RANGE)
    assert torch.allclose(table(place).double(), expected, atol=1.5e-4)
    assert RANGE[0] <= float(table(place)) <= RANGE[1]


def test_noise_that_follows_the_prediction_is_one_function_too():
    loss = GAILoss(noise=DepthNoise(0.3, slope=0.1), label_range=RANGE)
    table = ReadoutTable(loss.readout, RANGE)
    p = torch.linspace(0.0, 12.0, 500)
    assert torch.allclose(table(p), loss.readout(p).detach(), atol=1.5e-4)


def test_a_jump_is_moved_by_no_more_than_networks_are_exact():
    table = ReadoutTable(lambda p: (p > 3.3).double(), RANGE)
    assert table(torch.tensor([3.298, 3.302])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("function", [lambda p: -p.clamp(0, 9), lambda p: p.clamp(0, 9).log()])
def test_what_does_not_increase_or_is_not_finite_is_refused(function):
    with pytest.raises(ConfigError, match="cannot be put into a table"):
        ReadoutTable(function, RANGE)
