"""Hiding what does not count, by the bits; ranks are in test_gathering.py."""

import pytest
import torch

from depthbal.losses.reduction import double_sum, hide


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (0,)])
def test_hiding_equals_a_choice_between_the_value_and_0(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator).to(dtype)
    mask = torch.rand(shape, generator=generator) < 0.5
    values = torch.where(mask, values, torch.nan)
    hidden = hide(values, mask)
    assert torch.equal(hidden, torch.where(mask, values, torch.zeros_like(values)))
    assert hidden.dtype == dtype


def test_counted_nan_stays_and_nothing_given_is_changed():
    values, mask = torch.tensor([torch.nan, 1.0]), torch.tensor([True, False])
    assert hide(values, mask)[0].isnan()
    assert values[1] == 1


def test_gradcheck_twice():
    values = torch.randn(7, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(7) % 2 == 0
    for function in (lambda v: hide(v, mask), double_sum):
        assert torch.autograd.gradcheck(function, values)
        assert torch.autograd.gradgradcheck(lambda v, f=function: f(v**2), values)


def test_the_sum_of_many_float32_is_that_of_float64():
    values = torch.rand(10**6)
    assert double_sum(values).item() == pytest.approx(values.double().sum().item(), rel=1e-12)
