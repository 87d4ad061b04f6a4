"""The losses balance for the world they are told."""

import numpy as np
import pytest
import torch

from depthbal.losses import BNILoss, GAILoss
from depthbal.priors import Histogram

EDGES = np.linspace(0.5, 10.5, 201)
CENTERS = (EDGES[:-1] + EDGES[1:]) / 2
TRAIN = np.exp(-CENTERS / 2)
TARGET = CENTERS**2
SIGMA = 0.8


def best_location(loss: torch.nn.Module, posterior: np.ndarray) -> float:
    """The p that minimises the expected loss of labels distributed as the posterior."""
    p = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    labels = torch.from_numpy(CENTERS)
    weights = torch.from_numpy(posterior / posterior.sum())
    optimizer = torch.optim.LBFGS([p], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = (loss(p.expand(len(labels)), labels) * weights).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return p.item()


@pytest.mark.parametrize("loss", [BNILoss, GAILoss])
@pytest.mark.parametrize("world", ["uniform", "log_uniform", "file"])
@pytest.mark.parametrize("location", [3.0, 6.0])
def test_the_optimum_is_the_location_in_the_target_world(loss, world, location, tmp_path):
    """Labels whose target-world posterior is N(location, sigma^2), seen through p_train."""
    target = {"uniform": np.ones_like(CENTERS), "log_uniform": 1 / CENTERS, "file": TARGET}[world]
    file = tmp_path / "target.json"
    Histogram(EDGES, TARGET).save(file)
    in_target = np.exp(-0.5 * ((CENTERS - location) / SIGMA) ** 2)
    in_training = in_target * TRAIN / target
    criterion = loss(
        init_noise_sigma=SIGMA,
        reduction="none",
        relative_to=str(file) if world == "file" else world,
    )
    criterion.set_prior(Histogram(EDGES, 1e6 * TRAIN))
    found = best_location(criterion.double(), in_training)
    assert found == pytest.approx(location, abs=0.01 if loss is BNILoss else 0.05)


def test_tempered_to_nothing_it_is_mse_after_the_read_out():
    """tau = 0 is the squared error: its read-out is the mean of the training world."""
    in_training = np.exp(-0.5 * ((CENTERS - 4.0) / SIGMA) ** 2) * TRAIN
    criterion = BNILoss(
        init_noise_sigma=SIGMA, reduction="none", label_range=(EDGES[0], EDGES[-1]), tau=0.0
    )
    criterion.set_prior(Histogram(EDGES, 1e6 * TRAIN))
    found = best_location(criterion.double(), in_training)
    mean = (in_training * CENTERS).sum() / in_training.sum()
    readout = criterion.readout(torch.tensor([found], dtype=torch.float64)).item()
    assert readout == pytest.approx(mean, abs=0.005)


def test_an_unknown_world_is_an_error_before_training():
    criterion = GAILoss(relative_to="no such file.json")
    with pytest.raises((ValueError, FileNotFoundError), match="no such file"):
        criterion.set_prior(Histogram(EDGES, TRAIN))
