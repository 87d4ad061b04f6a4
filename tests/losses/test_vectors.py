"""Vector labels: event_dim=1."""

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


def slow_evidence(preds: Tensor, prior: GaussianMixture, sigma: float) -> Tensor:
    covariances = prior.variances
    if covariances.ndim == 2:
        covariances = torch.diag_embed(covariances)
    densities = MultivariateNormal(
        prior.means, covariances + sigma**2 * torch.eye(D, dtype=torch.float64)
    )
    return torch.logsumexp(prior.weights.log() + densities.log_prob(preds[:, None]), 1)


def slow(preds: Tensor, target: Tensor, prior: GaussianMixture, sigma: float) -> Tensor:
    noise = MultivariateNormal(preds, sigma**2 * torch.eye(D, dtype=torch.float64))
    return slow_evidence(preds, prior, sigma) - noise.log_prob(target)


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


def test_diagonal_and_full_covariances_agree():
    preds, target, prior = problem()
    diagonal = prior.variances.diagonal(dim1=1, dim2=2)
    values = [
        make("GAI", GaussianMixture(prior.weights, prior.means, variances))(preds, target)
        for variances in (diagonal, torch.diag_embed(diagonal))
    ]
    torch.testing.assert_close(values[0], values[1])


@every
def test_gradients_are_those_of_the_value(name):
    preds, target, prior = problem(6)
    if name == "BNI":
        prior = targets_as_prior(target)
    loss = make(name, prior, init_noise_sigma=0.7, noise="learned", scale="none")
    sigma = loss.noise.log_sigma.detach().clone().requires_grad_()

    def value(preds, log_sigma):
        return torch.func.functional_call(loss, {"noise.log_sigma": log_sigma}, (preds, target))

    assert torch.autograd.gradcheck(value, (preds.requires_grad_(), sigma))


@every
def test_a_mask_of_labels_equals_dropping_them(name):
    preds, target, prior = problem()
    mask = torch.arange(20) % 3 > 0
    loss = make(name, prior)
    hidden = preds.masked_fill(~mask[:, None], torch.nan)
    torch.testing.assert_close(loss(hidden, target, mask), loss(preds[mask], target[mask]))


@every
def test_half_precision_float32_and_float64_agree(name):
    preds, target, prior = problem()
    exact = make(name, prior)(preds, target)
    single = make(name, prior).float()(preds.float(), target.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(exact.item(), rel=1e-5)


@every
def test_nothing_is_broadcast(name):
    preds, target, prior = problem()
    loss = make(name, prior)
    with pytest.raises(ValueError, match="differ"):
        loss(preds[:3], target[:1])
    with pytest.raises(ValueError, match="one entry per label"):
        loss(preds, target, torch.ones(20, D, dtype=torch.bool))
    with pytest.raises(ValueError, match="single numbers"):
        loss(preds[0, 0], target[0, 0])


def test_a_prior_of_another_dimension_is_an_error():
    preds, target, prior = problem()
    with pytest.raises(ValueError, match="vectors of the prior's dimension 3"):
        make("GAI", prior)(preds[:, :2], target[:, :2])
    with pytest.raises(ValueError, match=r"vectors \(event_dim=1\), got one of scalar labels"):
        GAILoss(GaussianMixture([1.0], [0.0], [1.0]), event_dim=1)
    with pytest.raises(ValueError, match=r"scalar labels \(event_dim=0\), got one of vectors"):
        GAILoss(prior)


@pytest.mark.parametrize("batch", [D, 2])
def test_a_batch_as_large_as_the_dimension_or_the_mixture_is_no_trap(batch):
    """The published code broadcasts (B, D) silently where B equals D or D equals K."""
    preds, target, _ = problem()
    generator = torch.Generator().manual_seed(2)
    prior = GaussianMixture(
        torch.ones(D), torch.randn(D, D, generator=generator), spd(generator, D)
    )
    values = make("GAI", prior, scale="none", reduction="none")(preds[:batch], target[:batch])
    torch.testing.assert_close(values, slow(preds[:batch], target[:batch], prior, 1.0))
    grouped = make("BMC", prior, scale="none", reduction="none")(preds[:batch], target[:batch])
    own = targets_as_prior(target[:batch])
    torch.testing.assert_close(grouped, slow(preds[:batch], target[:batch], own, 1.0))


def test_the_weights_scale_the_data_term_and_the_balance_apart():
    preds, target, prior = problem()
    data = ((preds - target) ** 2).sum(1).mean() / (2 * 0.36)
    whole = slow(preds, target, prior, 0.6).mean()
    loss = make("GAI", prior, init_noise_sigma=0.6, mse_weight=3.0, balance_weight=0.5)
    expected = (3 * data + 0.5 * (whole - data)) * 2 * 0.36
    torch.testing.assert_close(loss(preds, target), expected)
    plain = make("GAI", prior, init_noise_sigma=0.6, balance_weight=0.0)
    torch.testing.assert_close(plain(preds, target), MSELoss(event_dim=1)(preds, target))


def pull_towards_the_label(loss: nn.Module) -> float:
    """The gradient at an error of 1 along the second axis, in which labels hardly vary."""
    preds = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss(preds, torch.zeros(1, 2, dtype=torch.float64)).backward()
    return preds.grad[0, 1].item()


def test_a_floor_or_an_anchor_restores_the_pull_in_directions_without_variance():
    """Along an axis with label variance t^2 the pull is 2 p t^2 / (t^2 + s^2), next to nothing."""
    thin = GaussianMixture([1.0], [[0.0, 0.0]], [[1.0, 1e-6]])
    floored = GaussianMixture([1.0], [[0.0, 0.0]], [[1.0, 0.04]])
    options = {"event_dim": 1, "init_noise_sigma": 0.5}
    assert pull_towards_the_label(GAILoss(thin, **options)) == pytest.approx(
        2 * 1e-6 / (1e-6 + 0.25), rel=1e-6
    )
    assert pull_towards_the_label(GAILoss(floored, **options)) == pytest.approx(
        2 * 0.04 / 0.29, rel=1e-6
    )
    anchored = GAILoss(thin, **options, balance_weight=0.9)
    assert pull_towards_the_label(anchored) == pytest.approx(
        2 - 0.9 * 2 * 0.25 / 0.250001, rel=1e-6
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"label_range": (0.0, 1.0)}, "no label_range"),
        ({"noise": "depth"}, "for vectors"),
        ({"event_dim": 2}, "event_dim 0"),
        ({"mse_weight": -1.0}, "not negative"),
        ({"mse_weight": 0.0, "balance_weight": 0.0}, "not both 0"),
    ],
)
def test_bad_arguments_are_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GAILoss(**{"event_dim": 1, **kwargs})
