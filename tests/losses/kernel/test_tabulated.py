"""Cubic tables of smooth functions."""

import math

import pytest
import torch

from depthbal.losses.kernel import tabulated
from depthbal.losses.kernel.tabulated import build, interpolate


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.sin(), 3 * (x / 2).cos(), x.exp() / 20])


@pytest.mark.parametrize("budget", [1e-5, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolates_every_curve_within_the_tolerance(dtype, budget):
    tolerance = torch.full((3, 1), 1e-6, dtype=torch.float64)
    table = build(waves, 0.0, 3.0, 1.0, 1000, tolerance)
    arguments = torch.linspace(0, 3, 4001, dtype=dtype)
    arguments = arguments[:60] if budget < 1 else arguments  # one chunk per argument
    got = interpolate(table, arguments, budget)
    for curve, expected in zip(got, waves(arguments.double()), strict=True):
        assert curve.dtype == dtype
        torch.testing.assert_close(curve.double(), expected, rtol=0, atol=1e-6)


def test_is_exact_for_cubics():
    def cubic(x: torch.Tensor) -> torch.Tensor:
        return (x**3 - 2 * x + 1)[None]

    table = build(cubic, -1.0, 2.0, 1.0, 1000, torch.full((1, 1), 1e-9, dtype=torch.float64))
    arguments = torch.linspace(-1, 2, 301, dtype=torch.float64)
    torch.testing.assert_close(interpolate(table, arguments)[0], cubic(arguments)[0])


@pytest.mark.parametrize(
    ("high", "max_cells", "tolerance"),
    [
        (3.0, 10, 1e-6),  # too few arguments for it to pay
        (1e9, 10**9, 1e-6),  # too large
        (math.inf, 10**9, 1e-6),
        (math.nan, 10**9, 1e-6),
        (3.0, 1000, 1e-12),  # not exact enough
    ],
)
def test_there_is_no_table_where_it_would_not_pay_or_not_be_exact(high, max_cells, tolerance):
    limits = torch.full((3, 1), tolerance, dtype=torch.float64)
    assert build(waves, 0.0, high, 1.0, max_cells, limits) is None


def test_a_function_that_is_nan_somewhere_has_no_table():
    def broken(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 2.5, torch.nan, x)[None]

    assert build(broken, 0.0, 3.0, 1.0, 1000, torch.ones(1, 1, dtype=torch.float64)) is None


def test_one_single_argument_has_a_table():
    table = build(waves, 2.0, 2.0, 1.0, 1000, torch.full((3, 1), 1e-6, dtype=torch.float64))
    got = interpolate(table, torch.full((5,), 2.0))
    assert got[0].tolist() == pytest.approx([math.sin(2.0)] * 5, abs=1e-6)


def test_curves_do_not_keep_each_other_alive():
    table = build(waves, 0.0, 3.0, 1.0, 1000, torch.full((3, 1), 1e-6, dtype=torch.float64))
    for curve in interpolate(table, torch.rand(tabulated.CACHE_ARGUMENTS + 3)):
        assert curve.untyped_storage().nbytes() == curve.numel() * curve.element_size()
