"""The unbalanced losses."""

import math

import pytest
import torch

from depthbal.losses import LOSSES, SILogLoss
from tests.reference import plain_loss

FOCAL = [
    {"error": error, "activation": activation, "beta": beta, "gamma": gamma}
    for error in ("absolute", "squared")
    for activation in ("sigmoid", "tanh")
    for beta, gamma in ((0.2, 1.0), (1.0, 2.0), (0.7, 0.5))
]
CASES = [
    ("MSELoss", {}),
    ("L1Loss", {}),
    *[("HuberLoss", {"delta": delta}) for delta in (0.3, 2.0)],
    *[("SILogLoss", {"scale_invariance": share}) for share in (0.0, 0.5, 1.0)],
    *[("FocalRLoss", options) for options in FOCAL],
]
every_case = pytest.mark.parametrize(("name", "options"), CASES)


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    preds, target = 0.7 + 9.3 * torch.rand(2, 3, 1, 7, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(target.shape, generator=generator) < 0.6
    return preds.to(dtype), target.to(dtype), mask


@every_case
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_plain_python_over_the_entries_that_count(name, options, dtype, rtol):
    preds, target, mask = batch(dtype)
    value = LOSSES[name](**options)(preds, target, mask)
    expected = plain_loss(name, preds[mask].tolist(), target[mask].tolist(), **options)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(expected, rel=rtol)


@every_case
def test_a_perfect_prediction_costs_nothing_and_is_left_alone(name, options):
    target = torch.tensor([1.0, 2.0, 5.0])
    preds = target.clone().requires_grad_()
    value = LOSSES[name](**options)(preds, target)
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(preds.grad).all()
    assert name == "L1Loss" or (preds.grad == 0).all()


def test_silog_leads_negative_predictions_back_and_is_smooth_at_the_floor():
    loss = SILogLoss(0.0, floor=0.01)
    preds = torch.tensor([-3.0, 0.0, 0.01 - 1e-9, 0.01 + 1e-9], dtype=torch.float64)
    preds.requires_grad_()
    values = SILogLoss(0.0, floor=0.01, reduction="none")(preds, torch.ones(4).double())
    loss(preds, torch.ones(4).double()).backward()
    assert torch.isfinite(values).all()
    assert (preds.grad < 0).all()
    assert values[1].item() == pytest.approx((math.log(0.01) - 1) ** 2)
    torch.testing.assert_close(values[2], values[3], rtol=1e-6, atol=0)
    torch.testing.assert_close(preds.grad[2], preds.grad[3], rtol=1e-6, atol=0)


@every_case
def test_first_and_second_derivatives_are_those_of_the_value(name, options):
    preds, target, mask = (part[0, 0] for part in batch())
    loss = LOSSES[name](**options)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), preds.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda p: loss(p, target, mask), preds.requires_grad_())


MANY = 0.5 + 80 * torch.rand(200, 500, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize(
    ("preds", "target"),
    [
        ([0.0, 1e-30, 3e38], [1.0, 2.0, 3.0]),  # logarithms of vanished and huge predictions
        ([2.0], [1.0]),  # the variance of one label
        *zip(1.7 * MANY, MANY, strict=True),  # a variance as a difference of squares
    ],
)
def test_silog_is_free_of_the_known_causes_of_nan(share, preds, target):
    leaf = torch.as_tensor(preds).requires_grad_()
    value = SILogLoss(share)(leaf, torch.as_tensor(target))
    value.backward()
    assert 0 <= value < torch.inf
    assert torch.isfinite(leaf.grad).all()
