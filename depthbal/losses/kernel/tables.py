"""Cubic tables of functions of one variable, checked against the functions themselves.

Half a million predictions need about a thousand exact values and an interpolation. ``build`` is for
smooth functions: equal cells, cubics through four nodes at distance h, which err by 9 / 384 h^4
times the fourth derivative. ``build_between`` is for functions that are smooth between known
points: cells that end there, halved until a cubic fits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

NODES_PER_SMOOTHNESS = 24
MAX_NODES = 2**15
# Every so many cells one is checked: what varies over 24 of them shows in each fourth.
CHECKED = 4
# Cells farther from zero have numbers that float32 cannot hold.
MAX_POSITION = 2**23
# Arguments interpolated at once, on a CPU so that the temporaries stay in its cache.
CACHE_ARGUMENTS, DEVICE_ARGUMENTS = 2**15, 2**23
# Cubics between known points are fitted in the Chebyshev nodes of a cell and checked where they err
# most, in units of half a cell from its middle.
CHEBYSHEV = tuple(math.cos(math.pi * (2 * i + 1) / 8) for i in range(4))
CHECKS = (-0.75, 0.0, 0.75)
MAX_HALVINGS = 30
# Buckets per edge of a lookup, and how many edges may fall into one before a search is faster.
BUCKETS = 2
MAX_PER_BUCKET = 4

Function = Callable[[Tensor], Tensor]


class Table(NamedTuple):
    """Cubic coefficients, (4 powers, curves, cells), over cells of ``width``, each from 0 to 1."""

    first: int
    width: float
    coefficients: Tensor

    def locate(self, arguments: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells of arguments and the offsets inside them."""
        # Exact: the width is a power of 2 and the first cell a whole number of widths.
        position = (arguments * (1 / self.width)).sub_(self.first)
        cell = position.int().clamp_(0, self.coefficients.shape[2] - 1)
        return cell, position.sub_(cell)


class Lookup(NamedTuple):
    """``torch.searchsorted(edges, points, right=True)`` by equal buckets: a tenth of the time."""

    edges: Tensor
    starts: Tensor | None = None  # per bucket: how many edges lie in those before it
    scale: float = 0.0
    steps: int = 0

    @classmethod
    def of(cls, edges: Tensor) -> Self:
        """Make the buckets of increasing float64 edges."""
        reach = float(edges[-1] - edges[0]) if len(edges) else 0.0
        scale = BUCKETS * len(edges) / reach if reach > 0 else math.inf
        if not scale < 1e300:
            return cls(edges)
        held = torch.bincount(((edges - edges[0]) * scale).long())
        steps = int(held.max())
        if steps > MAX_PER_BUCKET:
            return cls(edges)
        padded = torch.cat([edges, edges.new_tensor([math.inf])])
        return cls(padded, (held.cumsum(0) - held).int(), scale, steps)

    def __call__(self, points: Tensor) -> Tensor:
        """Return how many edges are at or below each float64 point."""
        if self.starts is None:
            return torch.searchsorted(self.edges, points, right=True)
        # A point's bucket is never before that of an edge below it: rounding keeps the order.
        last = len(self.starts) - 1
        position = (points - self.edges[0]).mul_(self.scale).clamp_(0, last)
        bucket = position.int().clamp_(0, last)  # NaN, which no clamp moves, has some integer
        count = self.starts.index_select(0, bucket)
        for _ in range(self.steps):
            count += self.edges.index_select(0, count) <= points
        return count


class PiecewiseTable(NamedTuple):
    """Cubic coefficients as in ``Table`` over cells of any width, where they run from -1 to 1."""

    inner: Lookup
    middle: Tensor
    scale: Tensor
    coefficients: Tensor

    def locate(self, arguments: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells of arguments and the offsets inside them."""
        points = arguments.double()
        cell = self.inner(points)
        offset = points.sub(self.middle.index_select(0, cell))
        return cell, offset.mul_(self.scale.index_select(0, cell)).to(arguments.dtype)


def build(
    exact: Function, low: float, high: float, smoothness: float, max_cells: int, tolerance: Tensor
) -> Table | None:
    """Return a table over [low, high], or None where it would be large or inexact.

    ``exact`` maps float64 nodes (n,) to the curves there, (curves, n), which vary over the length
    ``smoothness``; ``tolerance`` is the largest error in a cell that is checked, (curves, 1).
    """
    if not (0 < smoothness < math.inf and math.isfinite(high - low)):
        return None
    width = 2.0 ** math.floor(math.log2(smoothness / NODES_PER_SMOOTHNESS))
    first, last = math.floor(low / width), math.floor(high / width)
    count = last - first + 1
    if count >= min(MAX_NODES, max_cells) or max(abs(first), abs(last)) > MAX_POSITION:
        return None
    steps = torch.arange(-1, count + 2, dtype=torch.float64, device=tolerance.device)
    nodes = exact(width * (first + steps))
    # The cubics through each four neighbours at -1, 0, 1 and 2, on the cell between 0 and 1.
    before, left, right, after = (nodes[:, start : start + count] for start in range(4))
    linear = right - before / 3 - left / 2 - after / 6
    square = (before + right) / 2 - left
    cube = (after - before) / 6 + (left - right) / 2
    coefficients = torch.stack([left, linear, square, cube])
    middle = exact(width * (first + steps[1:-2:CHECKED] + 0.5))
    halves = torch.tensor([1.0, 0.5, 0.25, 0.125], device=nodes.device).double()
    error = torch.einsum("pcn,p->cn", coefficients[..., ::CHECKED], halves) - middle
    # Written so that NaN refuses the table.
    return Table(first, width, coefficients) if bool((error.abs() <= tolerance).all()) else None


def build_between(
    exact: Function, edges: Tensor, max_cells: int, tolerance: Tensor
) -> PiecewiseTable | None:
    """Return a table over the cells between edges, halved until they keep to the tolerance.

    None where it would have too many cells or cells that never fit. ``exact`` is as for ``build``,
    smooth between neighbouring edges, and never asked for an edge.
    """
    points = edges.new_tensor(CHEBYSHEV + CHECKS)
    powers = points[:, None] ** torch.arange(4, device=edges.device)
    to_cubic = torch.linalg.inv(powers[:4])
    starts, stops = edges[:-1], edges[1:]
    wide = stops > starts
    starts, stops = starts[wide], stops[wide]
    finished: list[tuple[Tensor, Tensor]] = []
    count = 0
    for _ in range(MAX_HALVINGS):
        if not len(starts) or count + len(starts) > max_cells:
            break
        middle, half = (starts + stops) / 2, (stops - starts) / 2
        nodes = middle[:, None] + half[:, None] * points
        values = exact(nodes.flatten())
        values = values.view(len(values), *nodes.shape)
        cubics = values[..., :4] @ to_cubic.T
        errors = (cubics @ powers[4:].T - values[..., 4:]).abs()
        fits = (errors <= tolerance[..., None]).all(-1).all(0)  # NaN does not
        finished.append((starts[fits], cubics[:, fits].permute(2, 0, 1)))
        count += len(finished[-1][0])
        starts, middle, stops = starts[~fits], middle[~fits], stops[~fits]
        starts, stops = torch.cat([starts, middle]), torch.cat([middle, stops])
    if len(starts) or not count:
        return None
    left, order = torch.cat([part[0] for part in finished]).sort()
    coefficients = torch.cat([part[1] for part in finished], 2)[:, :, order]
    ends = torch.cat([left, edges[-1:]])
    middle = (ends[1:] + ends[:-1]) / 2
    return PiecewiseTable(Lookup.of(ends[1:-1]), middle, 2 / ends.diff(), coefficients)


def interpolate(table: Table | PiecewiseTable, arguments: Tensor) -> list[Tensor]:
    """Return every curve at flat arguments (n,) within the table's range, in their type."""
    coefficients = table.coefficients.to(arguments.dtype)
    # Separate tensors, so that keeping one for the backward pass does not keep them all.
    curves = [torch.empty_like(arguments) for _ in range(coefficients.shape[1])]
    step = CACHE_ARGUMENTS if arguments.device.type == "cpu" else DEVICE_ARGUMENTS
    for start in range(0, arguments.numel(), step):
        chunk = slice(start, start + step)
        cell, offset = table.locate(arguments[chunk])
        for number, curve in enumerate(curves):
            # Powers from the highest: one gather and one product each, nothing else is alive.
            powers = coefficients[:, number].flip(0)
            result = powers[0].index_select(0, cell)
            for power in powers[1:]:
                result = torch.addcmul(power.index_select(0, cell), result, offset)
            curve[chunk] = result
    return curves
