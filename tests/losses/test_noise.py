"""Noise scales: fixed, learned, growing with the prediction, or the user's own."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from depthbal.losses import BMCLoss, BNILoss, DepthNoise, GAILoss, NoiseModule, tables
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import drawn, gradcheck

PRIOR = GaussianMixture([0.7, 0.2, 0.1], [2.0, 4.0, 7.0], [0.5, 1.0, 2.0])
BINS = Histogram(np.linspace(0.5, 9.5, 10), [30, 50, 40, 20, 10, 5, 3, 2, 1])


def labels(count: int = 40) -> tuple[Tensor, Tensor]:
    return drawn(count, seed=3)[:2]


def growing(**options) -> DepthNoise:
    return DepthNoise(0.4, slope=0.1, max_sigma=1.0, **options).double()


def make(name: str, **options):
    if name == "BMC":
        return BMCLoss(**options).double()
    return (GAILoss(PRIOR, **options) if name == "GAI" else BNILoss(BINS, **options)).double()


def slow(preds: Tensor, target: Tensor, sigma: Tensor, prior: GaussianMixture) -> Tensor:
    """L of every label for one sigma each, with the normal densities of torch.distributions."""
    total = (prior.variances + sigma[:, None] ** 2).sqrt()
    terms = torch.distributions.Normal(prior.means, total).log_prob(preds[:, None])
    evidence = torch.logsumexp(prior.weights.log() + terms, 1)
    return evidence - torch.distributions.Normal(preds, sigma).log_prob(target)


def expected_sigma(preds: Tensor) -> Tensor:
    intercept = math.log(math.expm1(0.4))
    return (torch.log1p(torch.exp(intercept + 0.1 * preds))).clamp(max=1.0)


@pytest.mark.parametrize("scale", ["none", "mean", "pixel"])
@pytest.mark.parametrize("noise", ["fixed", "learned", "growing"])
def test_each_scale_restores_what_it_says(scale, noise):
    preds, target = labels()
    module = growing() if noise == "growing" else noise
    sigma = expected_sigma(preds) if noise == "growing" else torch.full_like(preds, 0.7)
    per_label, unit = slow(preds, target, sigma, PRIOR), 2 * sigma**2
    expected = {
        "none": per_label.mean(),
        "mean": per_label.mean() * unit.mean(),
        "pixel": (per_label * unit).mean(),
    }
    loss = GAILoss(PRIOR, init_noise_sigma=0.7, noise=module, scale=scale)
    torch.testing.assert_close(loss(preds, target), expected[scale], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["GAI", "BNI", "BMC"])
@pytest.mark.parametrize("noise", ["learned", "depth"])
def test_gradients_of_every_estimator_and_noise_are_those_of_the_value(name, noise):
    preds, target = labels(7)
    loss = make(name, noise=noise, init_noise_sigma=0.6, detach_noise=False, scale="none")
    if noise == "depth":
        loss.noise.slope.data.fill_(0.05)
    assert loss.noise_parameters()
    assert gradcheck(loss, preds, target)


def test_a_detached_noise_sends_the_prediction_the_gradient_at_fixed_sigma():
    preds, target = labels()
    loss = GAILoss(PRIOR, noise=growing(), scale="none", reduction="sum")
    preds.requires_grad_()
    loss(preds, target).backward()
    held = preds.detach().clone().requires_grad_()
    slow(held, target, growing()(preds.detach()).detach(), PRIOR).sum().backward()
    torch.testing.assert_close(preds.grad, held.grad)
    assert loss.noise.slope.grad.abs() > 0


@pytest.mark.parametrize("learned", [True, False])
def test_a_noise_module_is_saved_and_restored_with_its_loss(learned):
    preds, target = labels()
    loss = GAILoss(PRIOR, noise=growing(learned=learned))
    assert len(loss.noise_parameters()) == 2 * learned
    loss.noise.slope.data.fill_(0.03)
    fresh = GAILoss(**loss.init_args)
    fresh.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert fresh.double()(preds, target).item() == pytest.approx(loss(preds, target).item())
    assert loss.noise_sigma is None


class WrongNoise(NoiseModule):
    def forward(self, preds: Tensor) -> Tensor:
        return torch.ones(preds.shape[0], 1)


def test_a_foreign_noise_of_another_shape_is_an_error_and_cannot_be_rebuilt():
    loss = GAILoss(PRIOR, noise=WrongNoise())
    with pytest.raises(ValueError, match=r"WrongNoise.*one per label, got \(40, 1\)"):
        loss(*labels())
    with pytest.raises(ValueError, match="not ours"):
        GAILoss(**loss.init_args)


def test_a_learned_intercept_above_the_cap_is_led_back():
    noise = growing()
    noise.intercept.data.fill_(50.0)
    noise(torch.zeros(1)).sum().backward()
    assert noise(torch.tensor([-1.0])).item() < noise.max_sigma
    assert noise.intercept.item() == pytest.approx(math.log(math.expm1(1.0)), rel=1e-6)


def test_a_uniform_prior_with_depth_noise_gives_the_heteroscedastic_gaussian_likelihood():
    """Far inside a uniform prior the evidence is a constant, so log sigma stays in the loss."""
    world = Histogram(np.linspace(0, 100, 4001), np.ones(4000))
    target = torch.linspace(30, 60, 500, dtype=torch.float64)
    preds = target + torch.sin(7 * target)
    noise = DepthNoise(0.5, slope=0.02, max_sigma=3.0, learned=False).double()
    loss = BNILoss(world, noise=noise, scale="none", reduction="none")
    likelihood = -torch.distributions.Normal(preds, noise(preds)).log_prob(target)
    torch.testing.assert_close(
        loss(preds, target) - likelihood, torch.full_like(target, -math.log(100)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
@pytest.mark.parametrize("family", ["gaussian", "laplace", "huber"])
def test_an_empty_batch_of_noise_that_follows_the_prediction_is_no_error(family, shape):
    loss = BNILoss(BINS, family=family, noise="depth")
    assert loss(torch.zeros(shape), torch.zeros(shape)).item() == 0


def test_in_any_unit_hidden_labels_do_not_set_the_scale_of_a_table(monkeypatch):
    """In millimetres a sigma of 1 for what the mask hides once made BMC a hundred times as slow."""
    scales = []
    build = tables.build
    monkeypatch.setattr(tables, "build", lambda *a: scales.append(a[3]) or build(*a))
    target = 1000 * (1 + 8 * torch.rand(60_000))
    mask = torch.arange(len(target)) % 30 > 0
    loss = BMCLoss(noise=DepthNoise(500.0, slope=0.1, max_sigma=2000.0))
    value = loss(torch.where(mask, target + 100, torch.nan), target, mask)
    torch.testing.assert_close(value, loss(target[mask] + 100, target[mask]), rtol=1e-5, atol=0)
    assert min(scales) > 500


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("noise", ["learned", "fixed"])
def test_the_loss_and_the_bounds_of_its_noise_follow_the_unit(noise, unit):
    preds, target = labels()
    one = GAILoss(PRIOR, noise=noise, init_noise_sigma=0.6).double()
    other = GaussianMixture(PRIOR.weights, PRIOR.means * unit, PRIOR.variances * unit**2)
    scaled = GAILoss(other, noise=noise, init_noise_sigma=0.6 * unit).double()
    value = scaled(preds * unit, target * unit) / unit**2
    torch.testing.assert_close(value, one(preds, target), rtol=1e-6, atol=0)
