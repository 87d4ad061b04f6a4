"""Gradient matching, and sums of losses."""

import pytest
import torch

from depthbal.losses import (
    CombinedLoss,
    GAILoss,
    GradientLoss,
    L1Loss,
    MSELoss,
)
from depthbal.priors import GaussianMixture, Histogram
from tests.reference import gradient_matching

RANGE = (0.7, 10.0)
MIXTURE = GaussianMixture([0.75, 0.25], [2.0, 6.0], [1.0, 4.0])


def maps(shape=(2, 7, 5), share=0.8):
    generator = torch.Generator().manual_seed(0)
    preds, target = 0.7 + 9 * torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return preds, target, torch.rand(shape, generator=generator) < share


@pytest.mark.parametrize("space", ["log", "label"])
@pytest.mark.parametrize("strides", [(1,), (1, 2, 4, 8)])
@pytest.mark.parametrize("share", [0.8, 0.1])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gradient_matching_equals_pair_by_pair(space, strides, share, dtype, rtol):
    preds, target, mask = maps(share=share)
    slow, fast = preds.clone().requires_grad_(), preds.to(dtype).requires_grad_()
    expected = gradient_matching(slow, target, mask, strides, space == "log")
    expected.backward()
    hidden = torch.where(mask, target, torch.nan).to(dtype)
    value = GradientLoss(strides, space=space)(fast, hidden, mask)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=rtol)
    torch.testing.assert_close(fast.grad.double(), slow.grad, rtol=rtol, atol=1e-7)


def test_gradient_matching_is_blind_to_the_scale_and_sees_a_blurred_edge():
    target = torch.ones(1, 1, 6, 6)
    target[..., 3:] = 4.0
    blurred = target.clone()
    blurred[..., 3] = 2.5
    loss = GradientLoss()
    assert loss(3 * target, target).item() == pytest.approx(0, abs=1e-6)
    assert loss(blurred, target).item() > 0.03


def gai(**options):
    return GAILoss(MIXTURE, label_range=RANGE, noise="learned", **options)


def test_a_sum_is_that_of_its_parts_and_reads_out_like_the_one_that_balances():
    preds, target, mask = maps()
    parts, factors = [L1Loss(label_range=RANGE), gai(), GradientLoss()], [0.5, 1.0, 2.0]
    loss = CombinedLoss(parts, factors)
    alone = preds.clone().requires_grad_()
    expected = sum(f * part(alone, target, mask) for f, part in zip(factors, parts, strict=True))
    value = loss(preds.requires_grad_(), target, mask)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, preds)[0], torch.autograd.grad(expected, alone)[0]
    )
    assert loss.balances
    assert loss.label_range == RANGE
    torch.testing.assert_close(loss.readout(preds), parts[1].readout(preds))
    torch.testing.assert_close(loss.interval(preds), parts[1].interval(preds))
    assert loss.noise_parameters() == parts[1].noise_parameters() == list(loss.parameters())
    assert loss.noise_sigma == 1.0
    assert not CombinedLoss([MSELoss(), GradientLoss()]).balances


def test_a_sum_gives_prior_and_range_to_its_parts():
    unset = CombinedLoss([MSELoss(), GAILoss()])
    unset.set_prior(Histogram([0.7, 5.0, 10.0], [3, 1]))
    unset.set_label_range(RANGE)
    assert not unset.needs_prior
    assert unset.label_range == unset.main.label_range == RANGE
