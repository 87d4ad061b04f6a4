"""Cubic tables of smooth functions."""

import math

import pytest
import torch

from depthbal.losses.kernel import tables
from depthbal.losses.kernel.tables import Lookup, build, build_between, interpolate

TOLERANCE = torch.tensor([[1e-6]], dtype=torch.float64)
LIMITS = TOLERANCE.expand(3, 1)


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.sin(), 3 * (x / 2).cos(), x.exp() / 20])


@pytest.mark.parametrize("budget", [1e-5, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolates_every_curve_within_the_tolerance(dtype, budget):
    table = build(waves, 0.0, 3.0, 1.0, 1000, LIMITS)
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


def test_one_single_argument_has_a_table():
    got = interpolate(build(waves, 2.0, 2.0, 1.0, 1000, LIMITS), torch.full((5,), 2.0))
    assert got[0].tolist() == pytest.approx([math.sin(2.0)] * 5, abs=1e-6)


def test_curves_do_not_keep_each_other_alive():
    table = build(waves, 0.0, 3.0, 1.0, 1000, LIMITS)
    for curve in interpolate(table, torch.rand(tables.CACHE_ARGUMENTS + 3)):
        assert curve.untyped_storage().nbytes() == curve.numel() * curve.element_size()


def edges(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_cells_between_edges_are_halved_until_a_curve_fits():
    table = build_between(lambda x: (20 * x).sin()[None], edges(0, 1), 1000, TOLERANCE)
    points = torch.rand(1001, dtype=torch.float64)
    assert 8 < table.coefficients.shape[2] < 200
    error = interpolate(table, points)[0] - (20 * points).sin()
    assert error.abs().max() < 2e-6


def test_jumps_at_the_edges_are_kept():
    def exact(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.abs(), x.sign()])

    table = build_between(exact, edges(-1, 0, 1), 10, TOLERANCE.expand(2, 1))
    points = torch.tensor([-1.0, -1e-6, 1e-6, 1.0])
    expected = [torch.tensor([1.0, 1e-6, 1e-6, 1.0]), torch.tensor([-1.0, -1.0, 1.0, 1.0])]
    torch.testing.assert_close(interpolate(table, points), expected)


def test_a_kink_that_no_edge_announces_is_closed_in_upon():
    table = build_between(lambda x: (x - 0.3).abs()[None], edges(0, 1), 100, TOLERANCE)
    points = torch.linspace(0, 1, 9001, dtype=torch.float64)
    error = interpolate(table, points)[0] - (points - 0.3).abs()
    assert error.abs().max() < 3e-6


@pytest.mark.parametrize(
    ("function", "high"),
    [
        (lambda x: (1000 * x).sin()[None], 1),  # too many cells
        (lambda x: (x > 0.3).double()[None], 1),  # a jump
        (lambda x: x[None] * torch.nan, 1),
        (lambda x: x[None], 0),  # no width
    ],
)
def test_too_many_cells_a_jump_and_nan_refuse_a_table_between_edges(function, high):
    assert build_between(function, edges(0, high), 50, TOLERANCE) is None


@pytest.mark.parametrize("spacing", ["even", "random", "clustered", "equal", "one", "none"])
def test_a_lookup_is_a_binary_search(spacing):
    generator = torch.Generator().manual_seed(0)
    found = {
        "even": torch.arange(93).double() * 0.1 + 0.75,
        "random": torch.rand(300, generator=generator, dtype=torch.float64).sort().values,
        "clustered": torch.rand(300, generator=generator).double().pow(20).sort().values,
        "equal": torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0, 5.0, 5.0]).double(),
        "one": torch.tensor([3.0]).double(),
        "none": torch.empty(0).double(),
    }[spacing]
    points = torch.cat([found, torch.rand(5000, generator=generator).double() * 12 - 1])
    points = torch.cat([points, found.nextafter(found - 1), torch.tensor([-1e30, 1e30]).double()])
    expected = torch.searchsorted(found, points, right=True)
    assert torch.equal(Lookup.of(found)(points).long(), expected)
    assert Lookup.of(found)(torch.tensor([torch.nan]).double()).shape == (1,)  # hidden by a mask
