from dataclasses import replace

import numpy as np
import pytest
import torch

from depthbal.evaluation import LabelBins
from depthbal.losses import GAILoss, MSELoss
from depthbal.predictor import Predictor
from depthbal.priors import GaussianMixture
from tests.reports.in_memory import read_as_mean, result_of


def made_up():
    return result_of(np.ones((3, 1, 2)), LabelBins([0.0, 1.0]))


def test_a_mean_that_differs_from_the_raw_output_is_a_posterior_mean():
    assert read_as_mean(made_up(), 0.5).readout == "posterior mean"
    assert made_up().readout == "raw"


def test_a_mean_without_a_noise_scale_is_called_the_raw_output():
    assert read_as_mean(made_up()).readout == "mean (no noise scale: the raw output)"


@pytest.mark.parametrize(
    "noisy",
    [
        {"noise_sigma": 1.0},
        {"posthoc": True},
        {"metrics": {"calibration": {"level": 0.6827}}},
        {"curves": {"train/noise_sigma_near": (np.ones(1), np.ones(1))}},
    ],
)
def test_a_loss_with_noise_is_never_said_to_have_none(noisy):
    assert replace(read_as_mean(made_up()), **noisy).readout == "mean (the raw output)"


def test_the_words_are_those_of_what_the_predictor_does():
    spec = {"short_side": None, "mean": [0.0] * 3, "std": [1.0] * 3}
    raw, prior = torch.tensor([0.1, 5.0, 24.8]), GaussianMixture([1.0], [2.0], [1.0])
    criteria = MSELoss(label_range=(0.7, 10.0)), GAILoss(prior, label_range=(0.7, 10.0))
    means = [
        Predictor(torch.nn.Identity(), criterion, spec).read_out(raw)["mean"]
        for criterion in criteria
    ]
    assert torch.equal(means[0], raw)
    assert not torch.equal(means[1], raw)
