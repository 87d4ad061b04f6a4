"""Tables of functions that are smooth between known points."""

import torch

from depthbal.losses.families import piecewise

TOLERANCE = torch.tensor([[1e-6]], dtype=torch.float64)


def edges(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_cells_are_halved_until_a_curve_fits():
    table = piecewise.build(lambda x: (20 * x).sin()[None], edges(0, 1), 1000, TOLERANCE)
    points = torch.rand(1001, dtype=torch.float64)
    assert 8 < table.coefficients.shape[0] < 200
    error = piecewise.interpolate(table, points)[0] - (20 * points).sin()
    assert error.abs().max() < 2e-6


def test_jumps_at_the_edges_are_kept():
    def exact(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.abs(), x.sign()])

    table = piecewise.build(exact, edges(-1, 0, 1), 10, TOLERANCE.expand(2, 1))
    points = torch.tensor([-1.0, -1e-6, 1e-6, 1.0])
    expected = torch.tensor([[1.0, 1e-6, 1e-6, 1.0], [-1.0, -1.0, 1.0, 1.0]])
    torch.testing.assert_close(piecewise.interpolate(table, points), expected)


def test_a_kink_that_no_edge_announces_is_closed_in_upon():
    table = piecewise.build(lambda x: (x - 0.3).abs()[None], edges(0, 1), 100, TOLERANCE)
    points = torch.linspace(0, 1, 9001, dtype=torch.float64)
    error = piecewise.interpolate(table, points)[0] - (points - 0.3).abs()
    assert error.abs().max() < 3e-6


def test_too_many_cells_a_jump_and_nan_refuse_a_table():
    def wave(x):
        return (1000 * x).sin()[None]

    assert piecewise.build(wave, edges(0, 1), 50, TOLERANCE) is None
    assert piecewise.build(lambda x: (x > 0.3).double()[None], edges(0, 1), 50, TOLERANCE) is None
    assert piecewise.build(lambda x: x[None] * torch.nan, edges(0, 1), 50, TOLERANCE) is None
    assert piecewise.build(wave, edges(1, 1), 50, TOLERANCE) is None
