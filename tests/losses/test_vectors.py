"""Vector labels: event_dim=1."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss
from depthbal.priors import GaussianMixture

D = 3


def spd(generator: torch.Generator, count: int) -> Tensor:
    root = torch.randn(count, D, D, generator=generator, dtype=torch.float64)
    return root @ root.mT + 0.2 * torch.eye(D, dtype=torch.float64)


def problem(count: int = 20) -> tuple[Tensor, Tensor, GaussianMixture]:
    generator = torch.Generator().manual_seed(1)
    target = 2 * torch.randn(count, D, generator=generator, dtype=torch.float64)
    preds = target + torch.randn(count, D, generator=generator, dtype=torch.float64)
    prior = GaussianMixture(
        [0.5, 0.3, 0.2],
        torch.randn(3, D, generator=generator, dtype=torch.float64),
        spd(generator, 3),
    )
    return preds, target, prior


def slow(preds: Tensor, target: Tensor, prior: GaussianMixture, sigma: float) -> Tensor:
    """L of every label, with the normal densities of torch.distributions."""
    spread = prior.variances
    covariances = spread if spread.ndim == 3 else torch.diag_embed(spread)
    noise = sigma**2 * torch.eye(D, dtype=torch.float64)
    densities = MultivariateNormal(prior.means, covariances + noise).log_prob(preds[:, None])
    evidence = torch.logsumexp(prior.weights.log() + densities, 1)
    return evidence - MultivariateNormal(preds, noise).log_prob(target)


def targets_as_prior(target: Tensor) -> GaussianMixture:
    return GaussianMixture(torch.ones(len(target)), target, torch.zeros_like(target))


def make(name: str, prior: GaussianMixture, **options) -> nn.Module:
    if name == "BMC":
        return BMCLoss(event_dim=1, **options).double()
    return {"GAI": GAILoss, "BNI": BNILoss}[name](prior, event_dim=1, **options).double()


every = pytest.mark.parametrize("name", ["GAI", "BNI", "BMC"])


@every
@pytest.mark.parametrize("shape", [(20,), (4, 5), (2, 1, 10)])
def test_equals_the_normal_densities_of_torch(name, shape):
    preds, target, prior = problem()
    if name != "GAI":
        prior = targets_as_prior(target)
    loss = make(name, prior, init_noise_sigma=0.6, scale="none", reduction="none")
    values = loss(preds.view(*shape, D), target.view(*shape, D))
    assert values.shape == shape
    torch.testing.assert_close(values.flatten(), slow(preds, target, prior, 0.6))


@pytest.mark.parametrize("count", [D, 2])
def test_a_batch_as_large_as_the_dimension_or_the_mixture_is_no_trap(count):
    """The published code broadcasts (B, D) silently where B equals D or D equals K."""
    preds, target = (part[:count] for part in problem()[:2])
    generator = torch.Generator().manual_seed(2)
    means = torch.randn(D, D, generator=generator)
    prior = GaussianMixture(torch.ones(D), means, spd(generator, D))
    for name, used in (("GAI", prior), ("BMC", targets_as_prior(target))):
        values = make(name, prior, scale="none", reduction="none")(preds, target)
        torch.testing.assert_close(values, slow(preds, target, used, 1.0))


def test_the_weights_scale_the_data_term_and_the_balance_apart():
    preds, target, prior = problem()
    data = ((preds - target) ** 2).sum(1).mean() / (2 * 0.36)
    whole = slow(preds, target, prior, 0.6).mean()
    loss = make("GAI", prior, init_noise_sigma=0.6, mse_weight=3.0, balance_weight=0.5)
    expected = (3 * data + 0.5 * (whole - data)) * 2 * 0.36
    torch.testing.assert_close(loss(preds, target), expected)
    plain = make("GAI", prior, init_noise_sigma=0.6, balance_weight=0.0)
    torch.testing.assert_close(plain(preds, target), MSELoss(event_dim=1)(preds, target))


@pytest.mark.parametrize(
    ("variance", "balance_weight", "pull"),
    [
        (1e-6, 1.0, 2 * 1e-6 / (1e-6 + 0.25)),
        (0.04, 1.0, 2 * 0.04 / 0.29),
        (1e-6, 0.9, 2 - 0.9 * 2 * 0.25 / 0.250001),
    ],
)
def test_a_floor_or_an_anchor_restores_the_pull_in_directions_without_variance(
    variance, balance_weight, pull
):
    """Along an axis with label variance t^2 the pull is 2 p t^2 / (t^2 + s^2), next to nothing."""
    prior = GaussianMixture([1.0], [[0.0, 0.0]], [[1.0, variance]])
    loss = GAILoss(prior, event_dim=1, init_noise_sigma=0.5, balance_weight=balance_weight)
    preds = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss(preds, torch.zeros(1, 2, dtype=torch.float64)).backward()
    assert preds.grad[0, 1].item() == pytest.approx(pull, rel=1e-6)


def test_batches_of_long_vectors_keep_their_digits_in_float32_far_from_zero():
    """Distances come from products of matrices, which an offset would swallow."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(300, 216, generator=generator) + 1000
    preds = (target + 0.3 * torch.randn(300, 216, generator=generator)).requires_grad_()
    loss = BMCLoss(event_dim=1, noise="learned", init_noise_sigma=15.0, scale="none")
    value = loss(preds, target)
    value.backward()
    wide = preds.detach().double().requires_grad_()
    log_sigma = loss.noise.log_sigma.detach().double().requires_grad_()
    sigma = log_sigma.exp()
    logits = -((wide[:, None] - target.double()) ** 2).sum(-1) / (2 * sigma**2)
    expected = (logits.logsumexp(1) - logits.diagonal()).mean() - math.log(300)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(preds.grad.double(), wide.grad, rtol=1e-4, atol=1e-8)
    assert loss.noise.log_sigma.grad.item() == pytest.approx(log_sigma.grad.item(), rel=1e-5)
