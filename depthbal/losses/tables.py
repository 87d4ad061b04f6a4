"""Cubic tables of functions of one variable, checked against the functions themselves.

Half a million predictions need about a thousand exact values and an interpolation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from depthbal.losses.reduction import chunks

NODES_PER_SMOOTHNESS = 24
MAX_NODES = 2**17
# Every so many cells one is checked: what varies over 24 of them shows in each fourth.
CHECKED = 4
# Cells farther from zero have numbers that float32 cannot hold.
MAX_POSITION = 2**23
# Arguments interpolated at once, on a CPU so that the temporaries stay in its cache.
CACHE_ARGUMENTS, DEVICE_ARGUMENTS = 2**15, 2**23
# Cubics between known points are fitted in the Chebyshev nodes of a cell and checked where they err
# most, in units of half a cell from its middle; at its ends as near as this share of the narrowest.
CHEBYSHEV = tuple(math.cos(math.pi * (2 * i + 1) / 8) for i in range(4))
CHECKS = (-1.0, -0.75, 0.0, 0.75, 1.0)
INSET = 1e-3
MAX_HALVINGS = 64
FLOAT32 = torch.finfo(torch.float32).eps
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
    """Return a table of smooth curves over [low, high], or None where it would be large or inexact.

    ``exact`` maps float64 nodes (n,) to the curves there, (curves, n), which vary over the length
    ``smoothness``; ``tolerance`` (curves, 1) is the largest error where cells are checked. Cubics
    through four nodes at distance h err by 9 / 384 h^4 times the fourth derivative.
    """
    if not (0 < smoothness < math.inf and math.isfinite(high - low)):
        return None
    width = 2.0 ** math.floor(math.log2(smoothness / NODES_PER_SMOOTHNESS))
    first, last = math.floor(low / width), math.floor(high / width)
    count = last - first + 1
    if count >= min(MAX_NODES, max_cells) or max(abs(first), abs(last)) > MAX_POSITION:
        return None
    steps = torch.arange(-1, count + 2, dtype=torch.float64, device=tolerance.device)
    table = cubic(first, width, exact(width * (first + steps)))
    middle = exact(width * (first + steps[1:-2:CHECKED] + 0.5))
    halves = middle.new_tensor([1.0, 0.5, 0.25, 0.125])
    error = torch.einsum("pcn,p->cn", table.coefficients[..., ::CHECKED], halves) - middle
    return table if bool((error.abs() <= tolerance).all()) else None  # NaN is not


def cubic(first: int, width: float, nodes: Tensor) -> Table:
    """Return the table through equal nodes (curves, n), of which the first is that before it."""
    before, left, right, after = (nodes[:, i : nodes.shape[1] - 3 + i] for i in range(4))
    linear = right - before / 3 - left / 2 - after / 6
    square = (before + right) / 2 - left
    cube = (after - before) / 6 + (left - right) / 2
    return Table(first, width, torch.stack([left, linear, square, cube]))


def build_between(
    exact: Function, edges: Tensor, max_cells: int, tolerance: Tensor
) -> PiecewiseTable | None:
    """Return a table over the cells between edges, halved until they keep to the tolerance.

    None where that takes too many cells. Where a curve is so large that float32 holds it to no more
    than the tolerance, that is enough. ``exact`` is never asked for an edge.
    """
    fitted, checked = edges.new_tensor(CHEBYSHEV), edges.new_tensor(CHECKS)
    to_cubic = torch.linalg.inv(fitted[:, None] ** torch.arange(4, device=edges.device)).T
    starts, stops = edges[:-1], edges[1:]
    wide = stops > starts
    starts, stops = starts[wide], stops[wide]
    narrowest = (stops - starts).min() if len(starts) else 0
    finished: list[tuple[Tensor, Tensor]] = []
    count = 0
    for _ in range(MAX_HALVINGS):
        if not len(starts) or count + len(starts) > max_cells:
            break
        middle, half = (starts + stops) / 2, (stops - starts) / 2
        checks = checked * (1 - INSET * (narrowest / (2 * half)).clamp(max=1))[:, None]
        nodes = torch.cat([fitted.expand(len(half), -1), checks], 1) * half[:, None]
        values = exact((middle[:, None] + nodes).flatten())
        values = values.view(len(values), *nodes.shape)
        cubics = values[..., :4] @ to_cubic
        found = cubics[..., 3:]
        for power in (2, 1, 0):
            found = found * checks + cubics[..., power, None]
        spread = values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True)
        errors = (found - values[..., 4:]).abs() + FLOAT32 / 8 * spread  # which float32 rounds
        limits = torch.maximum(tolerance[..., None], FLOAT32 * values[..., 4:].abs())
        narrow = 2 * half <= FLOAT32 * middle.abs()  # no float32 lies inside
        fits = ((errors <= limits) | narrow[:, None] & errors.isfinite()).all(-1).all(0)
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
    for part, *stored in chunks(step, arguments, *curves):
        cell, offset = table.locate(part)
        for number, curve in enumerate(stored):
            # Powers from the highest: one gather and one product each, nothing else is alive.
            powers = coefficients[:, number].flip(0)
            result = powers[0].index_select(0, cell)
            for power in powers[1:]:
                result = torch.addcmul(power.index_select(0, cell), result, offset)
            curve.copy_(result)
    return curves
