"""What the balanced losses become at the ends of their parameters, and which world they mean."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthbal.losses import LOSSES, BMCLoss, BNILoss, GAILoss
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import minimise

EDGES = np.linspace(0.5, 10.5, 201)
CENTERS = (EDGES[:-1] + EDGES[1:]) / 2
DEPTHS = Histogram(EDGES, 1e6 * np.exp(-CENTERS / 2))


def make(name: str, **options) -> nn.Module:
    loss = LOSSES[name](**options)
    if loss.needs_prior:
        loss.set_prior(DEPTHS)
    return loss


def skewed(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.7 + 9 * torch.rand(count, generator=generator, dtype=torch.float64) ** 3


balanced = pytest.mark.parametrize("name", ["GAILoss", "BNILoss", "BMCLoss"])


def test_gai_with_floored_variances_tends_to_mse_as_sigma_vanishes():
    target = skewed(200)
    preds = (target + 0.3 * torch.sin(40 * target)).requires_grad_()
    prior = GaussianMixture([0.8, 0.2], [1.5, 5.0], [0.5, 2.0])
    loss = GAILoss(prior, init_noise_sigma=1e-3, reduction="sum").double()
    loss(preds, target).backward()
    torch.testing.assert_close(preds.grad, 2 * (preds.detach() - target), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["BNILoss", "BMCLoss"])
def test_point_masses_tend_to_the_error_less_that_of_the_nearest_label(name):
    target = skewed(60)
    preds = target + 0.3 * torch.sin(40 * target)
    masses = torch.from_numpy(DEPTHS.centers) if name == "BNILoss" else target
    nearest = ((preds[:, None] - masses) ** 2).amin(1)
    loss = make(name, init_noise_sigma=1e-3, reduction="none").double()
    torch.testing.assert_close(
        loss(preds, target), (preds - target) ** 2 - nearest, rtol=0, atol=5e-5
    )


def test_the_three_estimators_converge_as_bins_narrow_and_the_batch_grows():
    target = skewed(500, seed=1)
    preds = target + 0.5

    def estimates(bins: int, count: int, components: int) -> Tensor:
        options = {"init_noise_sigma": 0.7, "reduction": "none", "scale": "none"}
        labels = 0.7 + 9 * ((torch.arange(count, dtype=torch.float64) + 0.5) / count) ** 3
        histogram = Histogram(np.linspace(0.7, 9.7, bins + 1)).update(labels)
        of_batch = BMCLoss(**options)(torch.cat([preds, labels]), torch.cat([target, labels]))
        mixture = GaussianMixture.fit(histogram, components, noise_sigma=0.7)
        return torch.stack(
            [
                GAILoss(mixture, **options)(preds, target),
                BNILoss(histogram, **options)(preds, target),
                of_batch[:500],
            ]
        )

    def disagreement(values: Tensor) -> float:
        return (values.amax(0) - values.amin(0)).max().item()

    coarse = disagreement(estimates(bins=5, count=50, components=2))
    fine = disagreement(estimates(bins=300, count=8_000, components=12))
    assert coarse > 0.1
    assert fine < 0.02


@balanced
@pytest.mark.parametrize("sigma", [1e-3, 0.03, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradients_are_finite_from_tiny_to_huge_noise_and_far_outside(name, sigma, dtype):
    target = skewed(300).to(dtype)
    offset = torch.linspace(-100, 100, 300, dtype=dtype) * sigma
    preds = (target + offset).requires_grad_()
    loss = make(name, init_noise_sigma=sigma, noise="learned").to(dtype)
    value = loss(preds, target)
    for part in (value, *torch.autograd.grad(value, (preds, loss.noise.log_sigma))):
        assert torch.isfinite(part).all()


TRAIN = np.exp(-CENTERS / 2)
SIGMA = 0.8


def best_location(loss: nn.Module, posterior: np.ndarray) -> Tensor:
    """The p that minimises the expected loss of labels distributed as the posterior."""
    p = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    labels, weights = torch.from_numpy(CENTERS), torch.from_numpy(posterior / posterior.sum())
    minimise(p, lambda: (loss(p.expand(len(labels)), labels) * weights).sum())
    return p.detach()


@pytest.mark.parametrize("loss", [BNILoss, GAILoss])
@pytest.mark.parametrize("world", ["uniform", "log_uniform", "file"])
@pytest.mark.parametrize("location", [3.0, 6.0])
def test_the_optimum_is_the_location_in_the_target_world(loss, world, location, tmp_path):
    """Labels whose target-world posterior is N(location, sigma^2), seen through p_train."""
    file = tmp_path / "target.json"
    Histogram(EDGES, CENTERS**2).save(file)
    target = {"uniform": CENTERS**0, "log_uniform": 1 / CENTERS, "file": CENTERS**2}[world]
    in_target = np.exp(-0.5 * ((CENTERS - location) / SIGMA) ** 2)
    told = str(file) if world == "file" else world
    criterion = loss(init_noise_sigma=SIGMA, reduction="none", relative_to=told)
    criterion.set_prior(DEPTHS)
    found = best_location(criterion.double(), in_target * TRAIN / target)
    assert found.item() == pytest.approx(location, abs=0.01 if loss is BNILoss else 0.05)


def test_tempered_to_nothing_it_is_mse_after_the_read_out():
    """tau = 0 is the squared error: its read-out is the mean of the training world."""
    in_training = np.exp(-0.5 * ((CENTERS - 4.0) / SIGMA) ** 2) * TRAIN
    ends = (EDGES[0], EDGES[-1])
    criterion = make("BNILoss", init_noise_sigma=SIGMA, reduction="none", label_range=ends, tau=0.0)
    found = criterion.readout(best_location(criterion.double(), in_training))
    mean = (in_training * CENTERS).sum() / in_training.sum()
    assert found.item() == pytest.approx(mean, abs=0.005)


@pytest.mark.parametrize("name", ["GAILoss", "BNILoss"])
def test_no_digit_of_the_value_is_lost_for_a_sigma_far_above_the_labels(name):
    """2 s^2 times one rounding of log E in float32 was as large as the value itself."""
    target = skewed(100_000).float()
    preds = target + torch.sin(7 * target)
    loss = make(name, init_noise_sigma=1000.0)
    expected = loss(preds.double(), target.double()).item()
    assert loss(preds, target).item() == pytest.approx(expected, rel=2e-6)
