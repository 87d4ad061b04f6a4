"""The truncated-normal read-out."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss, truncated_normal_mean
from depthbal.losses.kernel import tables
from depthbal.priors import Histogram
from tests.losses.checks import RANGE, record_calls
from tests.shared import SHARED, needs_shared


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 3.0, 100.0])
def test_equals_scipy_inside_and_near_the_range(sigma):
    preds = torch.linspace(0.7 - 5 * sigma, 10 + 5 * sigma, 201, dtype=torch.float64)
    low, high = ((end - preds.numpy()) / sigma for end in RANGE)
    expected = truncnorm.mean(low, high, loc=preds.numpy(), scale=sigma)
    got = truncated_normal_mean(preds, sigma, RANGE).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [1e-3, 1.0])
def test_far_outside_it_tends_to_the_end_of_the_range(sigma):
    """The mean of the far tail of a normal exceeds its end by sigma^2 / distance (Mills)."""
    preds = torch.tensor([-1e4, 1e4], dtype=torch.float64)
    got = truncated_normal_mean(preds, sigma, RANGE)
    assert got[0].item() == pytest.approx(0.7 + sigma**2 / (1e4 + 0.7), abs=1e-8)
    assert got[1].item() == pytest.approx(10.0 - sigma**2 / (1e4 - 10.0), abs=1e-8)


@pytest.mark.parametrize("p", [1e5, 1e8, 1e12, 1e17, 1e30])
def test_a_diverged_prediction_reads_as_the_end_of_the_range(p):
    """Where p - sigma^2 / distance loses its digits, the middle of the range must not appear."""
    preds = torch.tensor([p, -p], dtype=torch.float64)
    got = truncated_normal_mean(preds, 1.0, RANGE)
    ends = torch.tensor([10.0, 0.7], dtype=torch.float64)
    torch.testing.assert_close(got, ends, atol=1.1 / p + 1e-14, rtol=0)


def test_is_monotone_and_stays_within_the_range():
    preds = torch.linspace(-50, 60, 20_001, dtype=torch.float64)
    got = truncated_normal_mean(preds, 1.0, RANGE)
    assert (got.diff() > 0).all()
    assert got.min() > 0.7
    assert got.max() < 10.0


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


def test_recovers_a_bounded_truth_that_the_raw_location_misses():
    """y uniform on [0, 10] seen through noise: with a uniform prior on the range, the posterior
    mean of y given x is the best prediction; the raw location x overshoots near the ends."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(400_000, generator=generator, dtype=torch.float64) * 10
    seen = truth + torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    read = truncated_normal_mean(seen, 1.0, (0.0, 10.0))
    edge = (seen > 10.2) & (seen < 10.4)
    assert read[edge].mean().item() == pytest.approx(truth[edge].mean().item(), abs=0.02)
    assert (seen - truth)[edge].mean() > 0.8
    assert ((read - truth) ** 2).mean() < ((seen - truth) ** 2).mean()


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
    assert got.min() >= torch.tensor(0.7)
    assert got.max() <= 10


def test_no_table_serves_where_one_location_is_far_away_or_sigma_varies():
    preds = torch.linspace(-3, 14, 100_000)
    preds[5] = 1e9
    for sigma in (torch.tensor(0.5), torch.linspace(0.2, 2, 100_000)):
        got = truncated_normal_mean(preds, sigma, RANGE)
        expected = truncated_normal_mean(preds.double(), sigma.double(), RANGE)
        assert (got - expected).abs().max() < 1e-6


def test_a_range_that_does_not_increase_is_an_error():
    with pytest.raises(ValueError, match="lo < hi"):
        truncated_normal_mean(torch.zeros(1), 1.0, (10.0, 0.7))
