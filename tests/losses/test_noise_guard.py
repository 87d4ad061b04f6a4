"""The guard of a noise scale that follows the prediction."""

import json
import re

import numpy as np
import pytest
import torch

from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss
from depthbal.losses.noise import DepthNoise, NoiseModule, check_noise, guard_noise
from depthbal.priors import Histogram
from tests.losses.checks import EDGES, LONG_TAIL, RANGE, both_priors
from tests.reference import training_posterior_mean
from tests.shared import SHARED, needs_shared


def proportional(share):
    return lambda p: (share * p).clamp(min=1e-3)


def highest(sigma_of, prior):
    message = check_noise(sigma_of, prior, RANGE)
    return float(re.fullmatch(r"only labels from .* to (.*) can be predicted", message)[1])


@needs_shared
@pytest.mark.parametrize(("share", "label"), [(0.15, 8.9), (0.25, 6.2)])
def test_proportional_noise_misses_far_depths_of_the_benchmark(share, label):
    """With the published pixel counts of NYUD2-DIR's training split, from 0.7 m."""
    path = SHARED / "facts" / "nyud2_train_pixel_counts.json"
    official = Histogram(EDGES, json.loads(path.read_text())["counts"][7:])
    assert highest(proportional(share), official) == pytest.approx(label, abs=0.05)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.25])
def test_proportional_noise_misses_far_labels_of_a_long_tail(share):
    """By plain loops over the training posterior at sigma = share p."""
    parts = (LONG_TAIL.counts.tolist(), LONG_TAIL.centers.tolist(), [0.0] * 93)
    means = [training_posterior_mean(p, *parts, share * p) for p in np.linspace(1.0, 40.0, 400)]
    found = highest(proportional(share), LONG_TAIL)
    assert found == pytest.approx(max(means), abs=6e-3)  # two digits are told
    assert found < 9.8


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 5.0, 50.0])
@both_priors
def test_a_constant_noise_always_passes(sigma, prior):
    assert check_noise(lambda _: torch.tensor(sigma), prior, RANGE) is None


def test_a_jump_of_sigma_within_the_range_is_not_increasing():
    def jump(p):
        return torch.where(p < 5.0, 0.2, 2.0)

    assert "does not grow" in check_noise(jump, LONG_TAIL, RANGE)


@both_priors
@pytest.mark.parametrize(("sigma", "slope"), [(0.1, 0.3), (0.1, 0.4), (1.0, -0.3)])
def test_a_slope_that_fails_becomes_the_largest_that_passes(prior, sigma, slope):
    noise = DepthNoise(sigma, slope=slope, max_sigma=100.0)
    intercept = noise.intercept.item()
    message = guard_noise(BMCLoss(noise=noise), prior, RANGE)
    kept = noise.slope.item()
    assert f"b = {slope:g} was reduced to {kept:.4g}" in message
    assert 0 < kept / slope < 1
    assert noise.intercept.item() == intercept
    assert check_noise(noise, prior, RANGE) is None
    with torch.no_grad():
        noise.slope.mul_(1.001)
    assert check_noise(noise, prior, RANGE) is not None


def test_the_cap_allows_a_slope_that_would_run_away_without_it():
    capped, free = (DepthNoise(0.5, slope=0.25, max_sigma=cap) for cap in (0.8, 100.0))
    assert check_noise(capped, LONG_TAIL, RANGE) is None
    assert check_noise(free, LONG_TAIL, RANGE) is not None


@pytest.mark.parametrize("loss", [GAILoss, BNILoss, BMCLoss])
def test_every_balanced_loss_is_guarded_once(loss):
    noise = DepthNoise(0.1, slope=0.4, max_sigma=100.0)
    criterion = loss(noise=noise, label_range=RANGE)
    criterion.set_prior(LONG_TAIL)
    assert "reduced" in guard_noise(criterion, LONG_TAIL, (0.0, 80.0))
    assert guard_noise(criterion, LONG_TAIL, (0.0, 80.0)) is None


RUNAWAY = {"noise_sigma": 0.1, "slope": 0.4, "max_sigma": 100.0}


@pytest.mark.parametrize(
    ("criterion", "prior"),
    [
        *((MSELoss(), LONG_TAIL), (torch.nn.L1Loss(), LONG_TAIL)),
        *((BMCLoss(), LONG_TAIL), (BMCLoss(noise="learned"), LONG_TAIL)),
        (BMCLoss(noise=DepthNoise(**RUNAWAY)), None),  # without a prior nothing can be checked
    ],
)
def test_losses_whose_noise_does_not_follow_the_predictions_pass(criterion, prior):
    assert guard_noise(criterion, prior, RANGE) is None


def test_a_noise_of_another_class_is_reported_and_left_alone():
    class Proportional(NoiseModule):
        depends_on_preds = True

        def forward(self, preds):
            return (0.25 * preds).clamp(min=1e-3)

    message = guard_noise(BMCLoss(noise=Proportional()), LONG_TAIL, RANGE)
    assert "Proportional" in message
    assert "can be predicted" in message
