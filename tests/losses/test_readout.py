"""The truncated-normal read-out and its interval."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss, tables, truncated_normal_mean
from depthbal.losses.readout import central_interval
from depthbal.priors import Histogram
from tests.losses.checks import RANGE, record_calls
from tests.shared import SHARED, needs_shared

LOW, HIGH = RANGE
TAIL = (1 - math.erf(math.sqrt(0.5))) / 2
# scipy's own quantiles lose their digits more than about 30 sigma outside the range
LOCATIONS = np.array([-9.0, -0.5, 0.0, 0.7, 0.8, 2.0, 5.35, 7.0, 9.9, 10.0, 11.0, 17.0])


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 3.0, 100.0])
def test_equals_scipy_inside_and_near_the_range(sigma):
    preds = torch.linspace(0.7 - 5 * sigma, 10 + 5 * sigma, 201, dtype=torch.float64)
    low, high = ((end - preds.numpy()) / sigma for end in RANGE)
    expected = stats.truncnorm.mean(low, high, loc=preds.numpy(), scale=sigma)
    got = truncated_normal_mean(preds, sigma, RANGE).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("p", [1e5, 1e8, 1e12, 1e17, 1e30])
def test_a_diverged_prediction_and_its_interval_read_as_the_end_of_the_range(p):
    """Where p - sigma^2 / distance loses its digits, the middle of the range must not appear."""
    preds = torch.tensor([p, -p], dtype=torch.float64)
    ends = torch.tensor([10.0, 0.7], dtype=torch.float64)
    mean = truncated_normal_mean(preds, 1.0, RANGE)
    torch.testing.assert_close(mean, ends, atol=1.1 / p + 1e-14, rtol=0)
    for end in central_interval(preds, 1.0, RANGE):
        torch.testing.assert_close(end, ends, atol=2.1 / p + 1e-14, rtol=0)


@pytest.mark.parametrize("sigma", [1e-3, 0.64, 1.0, 12.0])
def test_mean_and_interval_lie_in_the_range_in_order_and_grow_with_the_location(sigma):
    preds = torch.linspace(-1e3, 1e3, 4001, dtype=torch.float64)
    lower, upper = central_interval(preds, sigma, RANGE)
    mean = truncated_normal_mean(preds, sigma, RANGE)
    assert (lower <= upper).all()
    for part in (lower, mean, upper):
        assert (part.diff() >= -1e-9).all()
        assert part.min() >= 0.7
        assert part.max() <= 10.0
    inside = truncated_normal_mean(torch.linspace(-50, 60, 20_001).double(), 1.0, RANGE)
    assert (inside.diff() > 0).all()


@needs_shared
def test_a_certain_target_of_9_9_m_has_its_optimum_at_24_8():
    """On the official pixel counts of NYUD2-DIR."""
    facts = SHARED / "facts" / "nyud2_train_pixel_counts.json"
    histogram = Histogram(np.linspace(0, 10, 101), json.loads(facts.read_text())["counts"])
    loss = BNILoss(histogram, reduction="none", label_range=RANGE).double()
    preds = torch.linspace(9, 40, 31_001, dtype=torch.float64)
    best = preds[loss(preds, torch.full_like(preds, 9.9)).argmin()]
    assert best.item() == pytest.approx(24.8, abs=0.1)
    read = loss.readout(torch.tensor(24.8, dtype=torch.float64))
    assert read.item() == pytest.approx(9.93, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_loss_reads_out_with_its_sigma_and_range(dtype):
    preds = torch.tensor([0.0, 3.0, 14.0], dtype=dtype)
    expected = truncated_normal_mean(preds, 0.5, RANGE)
    for loss in (GAILoss, BMCLoss):
        balanced = loss(init_noise_sigma=0.5, label_range=RANGE)
        assert torch.equal(balanced.readout(preds), expected)
    assert GAILoss().readout(preds) is preds
    assert MSELoss(label_range=RANGE).readout(preds) is preds


@pytest.mark.parametrize("sigma", [0.02, 0.5, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_locations_are_read_from_a_table_within_1e_6_of_the_range(sigma, dtype, monkeypatch):
    built = record_calls(monkeypatch, tables, "build")
    spread = 6 * sigma * max(1, sigma / 9.3)
    preds = torch.linspace(0.7 - spread, 10 + spread, 2 * 75_001).view(2, -1).to(dtype)
    got = truncated_normal_mean(preds, sigma, RANGE)
    assert built[0] is not None
    assert got.dtype == torch.float32
    expected = truncated_normal_mean(preds.double(), sigma, RANGE)
    assert len(built) == 1  # float64 is always the formula
    assert (got - expected).abs().max() < 1e-6 * 9.3
    few = central_interval(preds[:, ::131].double(), sigma, RANGE)
    for found, formula in zip(central_interval(preds, sigma, RANGE), few, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[:, ::131].double(), formula, rtol=0, atol=1e-4)
    assert got.min() >= torch.tensor(0.7)
    assert got.max() <= 10


def test_no_table_serves_where_one_location_is_far_away_or_sigma_varies():
    preds = torch.linspace(-3, 14, 100_000)
    preds[5] = 1e9
    for sigma in (torch.tensor(0.5), torch.linspace(0.2, 2, 100_000)):
        got = truncated_normal_mean(preds, sigma, RANGE)
        expected = truncated_normal_mean(preds.double(), sigma.double(), RANGE)
        assert (got - expected).abs().max() < 1e-6


# ---- the interval ----


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 40.0])
def test_the_ends_leave_as_much_below_as_above_in_scipys_truncated_normal(sigma):
    ends = central_interval(torch.from_numpy(LOCATIONS), sigma, RANGE)
    a, b = (LOW - LOCATIONS) / sigma, (HIGH - LOCATIONS) / sigma
    normal = stats.truncnorm(a, b, loc=LOCATIONS, scale=sigma)
    np.testing.assert_allclose(normal.cdf(ends[0].numpy()), TAIL, rtol=1e-7)
    np.testing.assert_allclose(normal.sf(ends[1].numpy()), TAIL, rtol=1e-7)


def test_without_a_range_it_is_one_sigma_to_either_side():
    preds, sigma = torch.tensor([-3.0, 25.0]), torch.tensor([0.5, 2.0])
    lower, upper = central_interval(preds, sigma, None)
    assert (lower.tolist(), upper.tolist()) == ([-3.5, 23.0], [-2.5, 27.0])


def test_a_loss_gives_its_own_sigma_and_range():
    preds = torch.tensor([1.0, 9.0])
    loss = BMCLoss(init_noise_sigma=0.8, label_range=RANGE)
    torch.testing.assert_close(
        loss.interval(preds), central_interval(preds, 0.8, RANGE), rtol=0, atol=0
    )
    growing = GAILoss(noise="depth", init_noise_sigma=0.5)
    lower, upper = growing.interval(preds)
    sigma = growing.noise(preds).detach()
    torch.testing.assert_close(upper - lower, 2 * sigma, rtol=0, atol=1e-6)
    assert not upper.requires_grad


@pytest.mark.parametrize(
    "loss",
    [BMCLoss(family="laplace"), BMCLoss(event_dim=1), BMCLoss(family="huber")],
)
def test_losses_without_a_normal_sigma_of_scalars_have_no_interval(loss):
    assert loss.interval(torch.ones(2, 3)) is None
