"""The guard of a noise scale that follows the prediction."""

import json
import math

import numpy as np
import pytest
import torch

from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss
from depthbal.losses.noise import DepthNoise, NoiseModule
from depthbal.losses.noise_guard import check_noise, describe_failure, guard_noise, project_slope
from depthbal.priors import GaussianMixture, Histogram
from tests.reference import training_posterior_mean
from tests.shared import SHARED, needs_shared

RANGE = (0.7, 10.0)
EDGES = np.linspace(*RANGE, 94)
LONG_TAIL = Histogram(EDGES, 1e6 * np.exp(-(EDGES[:-1] + EDGES[1:]) / 3))


def official() -> Histogram:
    """The published pixel counts of NYUD2-DIR's training split, from 0.7 m."""
    path = SHARED / "facts" / "nyud2_train_pixel_counts.json"
    return Histogram(EDGES, json.loads(path.read_text())["counts"][7:])


def proportional(share):
    return lambda p: (share * p).clamp(min=1e-3)


def farthest(histogram: Histogram, share: float) -> float:
    """The largest mean label of the training posterior at sigma = share p, by plain loops."""
    parts = (histogram.counts.tolist(), histogram.centers.tolist(), [0.0] * 93)
    points = np.linspace(1.0, 40.0, 400)
    return max(training_posterior_mean(p, *parts, share * p) for p in points)


@needs_shared
@pytest.mark.parametrize(("share", "label"), [(0.15, 8.9), (0.25, 6.2)])
def test_proportional_noise_misses_far_depths_of_the_benchmark(share, label):
    check = check_noise(proportional(share), official(), RANGE)
    assert not check.reaches
    assert not check.passes
    assert check.highest == pytest.approx(label, abs=0.05)
    assert f"{check.highest:.2f}" in describe_failure(check)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.25])
def test_proportional_noise_misses_far_labels_of_a_long_tail(share):
    check = check_noise(proportional(share), LONG_TAIL, RANGE)
    assert not check.passes
    assert check.highest == pytest.approx(farthest(LONG_TAIL, share), abs=1e-3)
    assert check.highest < 9.8


@pytest.mark.parametrize("share", [0.2, 0.4, 0.8])
def test_the_largest_mean_of_two_labels_is_the_closed_form(share):
    """Labels 1 and 3, 9 to 1: log odds (p - 2) 2 / (share p)^2 - log 9, largest at p = 4."""
    prior = GaussianMixture([0.9, 0.1], [1.0, 3.0], [0.0, 0.0])
    odds = math.exp(2 * 2 / (share * 4) ** 2) / 9
    expected = 1 + 2 * odds / (1 + odds)
    check = check_noise(proportional(share), prior, (1.0, 3.0))
    assert check.passes == (expected > 3 - 0.02)
    if not check.passes:
        assert check.highest == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("prior", [LONG_TAIL, GaussianMixture.fit(LONG_TAIL, 4)])
def test_a_constant_noise_always_passes(sigma, prior):
    check = check_noise(lambda _: torch.tensor(sigma), prior, RANGE)
    assert check.increasing
    assert check.reaches


def test_a_jump_of_sigma_within_the_range_is_not_increasing():
    def jump(p):
        return torch.where(p < 5.0, 0.2, 2.0)

    check = check_noise(jump, LONG_TAIL, RANGE)
    assert not check.increasing
    assert check.highest == pytest.approx(5.0, abs=0.1)
    assert "does not grow" in describe_failure(check)


def test_noise_that_grows_towards_the_near_end_misses_near_labels():
    """The mirror image of proportional noise."""
    mirrored = Histogram(EDGES, LONG_TAIL.counts[::-1])
    check = check_noise(lambda p: (0.25 * (10.7 - p)).clamp(min=1e-3), mirrored, RANGE)
    forward = check_noise(proportional(0.25), LONG_TAIL, RANGE)
    assert not check.reaches
    assert check.lowest == pytest.approx(10.7 - forward.highest, abs=1e-3)


@pytest.mark.parametrize("prior", [LONG_TAIL, GaussianMixture.fit(LONG_TAIL, 4)])
@pytest.mark.parametrize(("sigma", "slope"), [(0.1, 0.3), (0.1, 0.4), (1.0, -0.3)])
def test_a_slope_that_fails_becomes_the_largest_that_passes(prior, sigma, slope):
    noise = DepthNoise(sigma, slope=slope, max_sigma=100.0)
    intercept = noise.intercept.item()
    message = project_slope(noise, prior, RANGE)
    kept = noise.slope.item()
    assert f"b = {slope:g} was reduced to {kept:.4g}" in message
    assert 0 < kept / slope < 1
    assert noise.intercept.item() == intercept
    assert check_noise(noise, prior, RANGE).passes
    with torch.no_grad():
        noise.slope.mul_(1.001)
    assert not check_noise(noise, prior, RANGE).passes


def test_a_slope_that_passes_is_left_alone():
    noise = DepthNoise(0.5, slope=0.2)
    assert project_slope(noise, LONG_TAIL, RANGE) is None
    assert noise.slope.item() == pytest.approx(0.2)
    assert noise.slope.requires_grad


def test_the_cap_allows_a_slope_that_would_run_away_without_it():
    capped, free = (DepthNoise(0.5, slope=0.25, max_sigma=cap) for cap in (0.8, 100.0))
    assert check_noise(capped, LONG_TAIL, RANGE).passes
    assert not check_noise(free, LONG_TAIL, RANGE).passes


@pytest.mark.parametrize("loss", [GAILoss, BNILoss, BMCLoss])
def test_every_balanced_loss_is_guarded_once(loss):
    criterion = loss(noise=DepthNoise(0.1, slope=0.4, max_sigma=100.0), label_range=RANGE)
    criterion.set_prior(LONG_TAIL)
    assert "reduced" in guard_noise(criterion, LONG_TAIL, (0.0, 80.0))
    assert guard_noise(criterion, LONG_TAIL, (0.0, 80.0)) is None


@pytest.mark.parametrize(
    "criterion", [MSELoss(), torch.nn.L1Loss(), BMCLoss(), BMCLoss(noise="learned")]
)
def test_losses_whose_noise_does_not_follow_the_predictions_pass(criterion):
    assert guard_noise(criterion, LONG_TAIL, RANGE) is None


def test_without_any_prior_nothing_can_be_checked():
    noise = DepthNoise(0.1, slope=0.4, max_sigma=100.0)
    assert guard_noise(BMCLoss(noise=noise), None, RANGE) is None
    assert noise.slope.item() == pytest.approx(0.4)


def test_a_noise_of_another_class_is_reported_and_left_alone():
    class Proportional(NoiseModule):
        depends_on_preds = True

        def forward(self, preds):
            return (0.25 * preds).clamp(min=1e-3)

    message = guard_noise(BMCLoss(noise=Proportional()), LONG_TAIL, RANGE)
    assert "Proportional" in message
    assert "can be predicted" in message


@pytest.mark.parametrize(
    ("prior", "label_range", "message"),
    [
        (LONG_TAIL, (10.0, 0.7), "lo < hi"),
        (GaussianMixture([1.0], [[0.0, 1.0]], [[1.0, 1.0]]), RANGE, "scalar"),
        (Histogram([0.0, 1.0]), RANGE, "empty"),
    ],
)
def test_what_cannot_be_checked_is_an_error(prior, label_range, message):
    with pytest.raises(ValueError, match=message):
        check_noise(proportional(0.1), prior, label_range)
