import math

import numpy as np
import pytest
import torch
from scipy import stats

from depthbal.losses import BMCLoss, GAILoss, MSELoss
from depthbal.losses.interval import central_interval, interval_of_loss
from tests.losses.checks import RANGE

LOW, HIGH = RANGE
TAIL = (1 - math.erf(math.sqrt(0.5))) / 2
# scipy's own quantiles lose their digits more than about 30 sigma outside the range
LOCATIONS = np.array([-9.0, -0.5, 0.0, 0.7, 0.8, 2.0, 5.35, 7.0, 9.9, 10.0, 11.0, 17.0])


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 40.0])
def test_the_ends_leave_as_much_below_as_above_in_scipys_truncated_normal(sigma):
    ends = central_interval(torch.from_numpy(LOCATIONS), sigma, RANGE)
    a, b = (LOW - LOCATIONS) / sigma, (HIGH - LOCATIONS) / sigma
    normal = stats.truncnorm(a, b, loc=LOCATIONS, scale=sigma)
    np.testing.assert_allclose(normal.cdf(ends[0].numpy()), TAIL, rtol=1e-7)
    np.testing.assert_allclose(normal.sf(ends[1].numpy()), TAIL, rtol=1e-7)


def test_far_outside_the_range_the_ends_are_those_of_an_exponential():
    # at 1e4 sigma outside the density on the range falls as exp(-1e4 y), to 1e-8
    lower, upper = central_interval(torch.tensor([-9999.3]).double(), 1.0, RANGE)
    assert float(lower - LOW) == pytest.approx(-math.log1p(-TAIL) / 1e4, rel=1e-6)
    assert float(upper - LOW) == pytest.approx(-math.log(TAIL) / 1e4, rel=1e-6)


@pytest.mark.parametrize("p", [1e5, 1e8, 1e12, 1e17, 1e30])
def test_a_diverged_prediction_has_its_interval_at_the_end_of_the_range(p):
    lower, upper = central_interval(torch.tensor([p, -p]).double(), 1.0, RANGE)
    for end in (lower, upper):
        torch.testing.assert_close(end.tolist(), [HIGH, LOW], rtol=0, atol=2.1 / p + 1e-14)


def test_a_sigma_far_wider_than_the_range_gives_the_uniform_interval():
    lower, upper = central_interval(torch.tensor([3.0]).double(), 1e9, RANGE)
    assert float(lower) == pytest.approx(LOW + TAIL * (HIGH - LOW), rel=1e-9)
    assert float(upper) == pytest.approx(HIGH - TAIL * (HIGH - LOW), rel=1e-9)


def test_the_interval_of_the_mirrored_location_is_the_mirrored_interval():
    preds = torch.linspace(-30, 40, 141, dtype=torch.float64)
    lower, upper = central_interval(preds, 0.8, RANGE)
    mirrored = central_interval(LOW + HIGH - preds, 0.8, RANGE)
    torch.testing.assert_close(LOW + HIGH - mirrored[1], lower, rtol=0, atol=1e-12)
    torch.testing.assert_close(LOW + HIGH - mirrored[0], upper, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [1e-3, 0.64, 12.0])
def test_ends_lie_in_the_range_in_order_and_grow_with_the_location(sigma):
    preds = torch.linspace(-1e3, 1e3, 4001, dtype=torch.float64)
    lower, upper = central_interval(preds, sigma, RANGE)
    assert (lower >= LOW).all()
    assert (upper <= HIGH).all()
    assert (lower <= upper).all()
    assert (lower.diff() >= -1e-9).all()
    assert (upper.diff() >= -1e-9).all()


def test_without_a_range_it_is_one_sigma_to_either_side():
    preds, sigma = torch.tensor([-3.0, 25.0]), torch.tensor([0.5, 2.0])
    lower, upper = central_interval(preds, sigma, None)
    assert (lower.tolist(), upper.tolist()) == ([-3.5, 23.0], [-2.5, 27.0])


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_many_locations_by_table_equal_few_by_the_formula(sigma):
    preds = torch.linspace(-4, 16, 2 * 2**16 + 1).view(1, -1)
    table = central_interval(preds, sigma, RANGE)
    few = torch.linspace(-4, 16, 2 * 2**16 + 1)[::131]
    formula = central_interval(few.double(), sigma, RANGE)
    for found, expected in zip(table, formula, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[0, ::131].double(), expected, rtol=0, atol=1e-4)


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ValueError, match="lo < hi"):
        central_interval(torch.ones(2), 1.0, (5.0, 5.0))


def test_a_loss_gives_its_own_sigma_and_range():
    preds = torch.tensor([1.0, 9.0])
    loss = BMCLoss(init_noise_sigma=0.8, label_range=RANGE)
    torch.testing.assert_close(
        interval_of_loss(loss, preds), central_interval(preds, 0.8, RANGE), rtol=0, atol=0
    )
    growing = GAILoss(noise="depth", init_noise_sigma=0.5)
    lower, upper = interval_of_loss(growing, preds)
    sigma = growing.noise(preds).detach()
    torch.testing.assert_close(upper - lower, 2 * sigma, rtol=0, atol=1e-6)
    assert not upper.requires_grad


@pytest.mark.parametrize(
    "loss",
    [MSELoss(), None, BMCLoss(family="laplace"), BMCLoss(event_dim=1), BMCLoss(family="huber")],
)
def test_losses_without_a_normal_sigma_of_scalars_have_no_interval(loss):
    assert interval_of_loss(loss, torch.ones(2, 3)) is None
