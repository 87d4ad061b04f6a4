"""What the balanced losses become where their parameters go to an end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from depthbal.losses import LOSSES, BMCLoss, BNILoss, GAILoss
from depthbal.priors import GaussianMixture, Histogram

EDGES = np.linspace(0.5, 10.5, 101)
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
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(preds.grad).all()
    assert torch.isfinite(loss.noise.log_sigma.grad)


shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@settings(max_examples=25, deadline=None)
@given(shape=shapes, event=st.integers(1, 4), seed=st.integers(0, 99), data=st.data())
@pytest.mark.filterwarnings("ignore:BMCLoss met a batch")
def test_odd_shapes_of_scalars_and_vectors_equal_their_flat_form(shape, event, seed, data):
    name = data.draw(st.sampled_from(["GAILoss", "BNILoss", "BMCLoss"]))
    vectors = data.draw(st.booleans())
    generator = torch.Generator().manual_seed(seed)
    full = (*shape, event) if vectors else shape
    target = 1 + torch.rand(full, generator=generator, dtype=torch.float64)
    preds = target + torch.randn(full, generator=generator, dtype=torch.float64)
    mask = torch.rand(shape, generator=generator) < 0.7
    if vectors:
        masses = torch.rand(3, event, generator=generator, dtype=torch.float64)
        variances = torch.zeros(3, event) if name == "BNILoss" else torch.ones(3, event)
        loss = LOSSES[name](event_dim=1)
        if loss.needs_prior:
            loss.set_prior(GaussianMixture(torch.ones(3), masses, variances))
    else:
        loss = make(name)
    flat = preds[mask], target[mask]
    torch.testing.assert_close(loss(preds, target, mask), loss(*flat))
