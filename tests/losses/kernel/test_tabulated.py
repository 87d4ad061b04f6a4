"""Cubic tables of smooth functions."""

import math

import pytest
import torch

from depthbal.losses.kernel import tables
from depthbal.losses.kernel.tables import build, build_between, interpolate

TOLERANCE = torch.tensor([[1e-6]], dtype=torch.float64)
LIMITS = TOLERANCE.expand(3, 1)


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.sin(), 3 * (x / 2).cos(), x.exp() / 20])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolates_every_curve_within_the_tolerance(dtype):
    table = build(waves, 0.0, 3.0, 1.0, 1000, LIMITS)
    arguments = torch.linspace(0, 3, 4001, dtype=dtype)
    got = interpolate(table, arguments)
    for curve, expected in zip(got, waves(arguments.double()), strict=True):
        assert curve.dtype == dtype
        torch.testing.assert_close(curve.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "high", "max_cells", "tolerance"),
    [
        (waves, 3.0, 10, 1e-6),  # too few arguments for it to pay
        (waves, 1e9, 10**9, 1e-6),  # too large
        (waves, math.inf, 10**9, 1e-6),
        (waves, math.nan, 10**9, 1e-6),
        (waves, 3.0, 1000, 1e-12),  # not exact enough
        (lambda x: torch.where(x > 2.5, torch.nan, waves(x)), 3.0, 1000, 1.0),
    ],
)
def test_there_is_no_table_where_it_would_not_pay_or_not_be_exact(
    function, high, max_cells, tolerance
):
    limits = torch.full((3, 1), tolerance, dtype=torch.float64)
    assert build(function, 0.0, high, 1.0, max_cells, limits) is None


def test_curves_do_not_keep_each_other_alive():
    table = build(waves, 0.0, 3.0, 1.0, 1000, LIMITS)
    for curve in interpolate(table, torch.rand(tables.CACHE_ARGUMENTS + 3)):
        assert curve.untyped_storage().nbytes() == curve.numel() * curve.element_size()


@pytest.mark.parametrize(
    ("function", "high"),
    [
        (lambda x: (1000 * x).sin()[None], 1),  # too many cells
        (lambda x: x[None] * torch.nan, 1),
        (lambda x: x[None], 0),  # no width
    ],
)
def test_too_many_cells_and_nan_refuse_a_table_between_edges(function, high):
    assert build_between(function, torch.tensor([0.0, high]).double(), 50, TOLERANCE) is None


def test_a_jump_costs_a_few_cells_and_only_what_float32_cannot_tell_from_it_is_wrong():
    table = build_between(
        lambda x: (x > 0.3).double()[None], torch.tensor([0.0, 1.0, 1e6]).double(), 200, TOLERANCE
    )
    arguments = torch.cat([torch.rand(1000) * 1e6, 0.3 + torch.linspace(-1, 1, 1001)])
    arguments = arguments[(arguments - 0.3).abs() > 1e-6]
    (found,) = interpolate(table, arguments)
    torch.testing.assert_close(found, (arguments > 0.3).float(), rtol=0, atol=2e-6)
