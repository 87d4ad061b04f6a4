"""The training world's mean label as a function of the location p, and its inverse.

    m(p) = E_train[y | p] = p + sigma^2 d log E(p) / dp      (sigma held fixed in the derivative)

One table of it serves the remap of a plain regressor (``posthoc``) and the guard of noise that
follows the prediction (``noise_guard``).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from depthbal.losses.kernel.evidence import SigmaOf, components
from depthbal.losses.kernel.exact import Wanted, exact_evidence
from depthbal.priors import GaussianMixture

# Largest error of the tabulated m(p), as a share of the labels' standard deviation.
TOLERANCE = 1e-7
# At a distance d from the labels float64 knows m to this number times d (d / sigma)^2, because the
# posterior's exponents are as large as (d / sigma)^2 / 2 and p cancels; finer is only noise.
ROUNDING = 1e-15
START_CELLS = 64
MAX_LABEL_NODES = 1024
MAX_NODES = 2**18
MAX_PIECES = 40
MAX_QUARTERINGS = 24


def training_mean(locations: Tensor, prior: GaussianMixture, noise_sigma: Tensor | float) -> Tensor:
    """Return m(p) in float64 for locations of any shape and one sigma, or one per location.

    Source: Tweedie's formula (Efron, Tweedie's Formula and Selection Bias, 2011).

    Example:
        >>> labels = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])
        >>> training_mean(torch.tensor([0.0, 1.0]), labels, 1.0)  # tanh(p / sigma^2)
        tensor([0.0000, 0.7616], dtype=torch.float64)
    """
    points = locations.detach().double().flatten()
    sigma = torch.as_tensor(noise_sigma, dtype=torch.float64, device=points.device).detach()
    sigma = sigma.reshape(()) if sigma.numel() == 1 else sigma.flatten()
    mixture = components(prior, points.device)
    slope = exact_evidence(points, sigma, mixture, Wanted(by_sigma=False)).by_preds
    assert slope is not None
    return (points + sigma**2 * slope).view(locations.shape)


class MeanTable:
    """Locations p and their m(p), tabulated piece by piece as far as they are asked for.

    A first piece covers the labels, or ``label_range``; further ones, each twice as wide as the one
    before, continue it to either side. Every piece is refined until m is linear between its nodes
    within the tolerance (default 1e-7 standard deviations of the labels). The pieces are the same
    in whatever order they are asked for, and so is the inverse.

    Example:
        >>> table = MeanTable(GaussianMixture([1.0], [2.0], [3.0]), 1.0)
        >>> table.invert(torch.tensor([2.0, 500.0], dtype=torch.float64))  # 2 + 4 / 3 (m - 2)
        tensor([  2., 666.], dtype=torch.float64)
    """

    def __init__(
        self,
        prior: GaussianMixture,
        noise_sigma: float | SigmaOf,
        label_range: tuple[float, float] | None = None,
        tolerance: float | None = None,
    ) -> None:
        parts = (prior.weights, prior.means, prior.variances)
        weights, means, variances = (part.detach().cpu() for part in parts)
        self._prior = GaussianMixture.unchecked(weights, means, variances)
        self._sigma = noise_sigma
        spread = weights @ (variances + (means - weights @ means) ** 2)
        self._tolerance = tolerance or TOLERANCE * math.sqrt(float(spread))
        self._range = label_range
        self._pieces = {-1: 0, 1: 0}
        self.locations = self.means = torch.empty(0, dtype=torch.float64)

    def invert(self, means: Tensor) -> Tensor:
        """Return p with m(p) = means, linear between the nodes.

        ``means`` are float64, of any shape and device, finite, not empty; values that m does not
        take get the table's end, which is 2^40 widths of the labels away.
        """
        low, high = torch.stack(means.aminmax()).tolist()
        self.climb(-1, low)
        self.climb(1, high)
        # Rounding must not make the table decrease where m is flat.
        table, values = (
            self.means.cummax(0).values.to(means.device),
            self.locations.to(means.device),
        )
        inside = means.clamp(table[0], table[-1]).contiguous()
        right = torch.searchsorted(table, inside).clamp(1, len(table) - 1)
        start, stop = table[right - 1], table[right]
        share = (inside - start) / (stop - start).clamp(min=torch.finfo(means.dtype).tiny)
        return torch.lerp(values[right - 1], values[right], share)

    def climb(self, side: int, goal: float, fall: float = math.inf) -> tuple[float, float]:
        """Add pieces at the lower (-1) or upper (1) end until m gets to the goal, or falls.

        Returns:
            How far m gets before it first falls back by more than ``fall``, and the location where
            it does, infinite where it does not.
        """
        # Tensors kept between calls must not belong to the evaluation loop's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            if not len(self.locations):
                self.locations, self.means = self._piece(self._first_nodes())
                self._start, end = self.locations[[0, -1]].tolist()
                self._width = end - self._start
            while True:
                within = side * self.locations >= side * self._start
                places, means = self.locations[within], side * self.means[within]
                if side < 0:
                    places, means = places.flip(0), means.flip(0)
                highest = means.cummax(0).values
                falls = (highest - means > fall).nonzero()
                if len(falls):
                    first = int(falls[0, 0])
                    return side * float(highest[first]), float(places[first])
                if highest[-1] >= side * goal or self._pieces[side] >= MAX_PIECES:
                    return side * float(highest[-1]), side * math.inf
                self._extend(side)

    def _first_nodes(self) -> Tensor:
        """Return the nodes from which the first piece is refined, the labels among them.

        At a small sigma m is a staircase with a step between two labels; an even grid could have
        the steps' own spacing and would see a straight line.
        """
        present = self._prior.means[self._prior.weights > 0].sort().values
        if self._range is not None:
            low, high = self._range
        else:
            assert not callable(self._sigma)
            low = float(present[0]) - 4 * self._sigma
            high = float(present[-1]) + 4 * self._sigma
        inside = present[:: math.ceil(len(present) / MAX_LABEL_NODES)]
        inside = inside[(inside > low) & (inside < high)]
        even = torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64)
        return torch.cat([even, inside]).sort().values

    def _extend(self, side: int) -> None:
        """Add the next piece at the lower (-1) or upper (1) end."""
        width = self._width * 2 ** self._pieces[side]
        self._pieces[side] += 1
        end = float(self.locations[0 if side < 0 else -1])
        low, high = sorted((end, end + side * width))
        piece = self._piece(torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64))
        kept = slice(None, -1) if side < 0 else slice(1, None)  # the shared node once
        parts = [(piece[0][kept], piece[1][kept]), (self.locations, self.means)][::-side]
        self.locations = torch.cat([part[0] for part in parts])
        self.means = torch.cat([part[1] for part in parts])

    def _piece(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined locations and their means."""
        low, high = self._prior.means.aminmax()
        distance = float(torch.maximum(low - nodes[0], nodes[-1] - high))
        sigma = self._sigma if not callable(self._sigma) else float(self._sigma(nodes).min())
        rounding = ROUNDING * distance * max(1.0, distance / sigma) ** 2

        def mean(p: Tensor) -> Tensor:
            noise = self._sigma if not callable(self._sigma) else self._sigma(p).double()
            return training_mean(p, self._prior, noise)

        return refine(mean, nodes, max(self._tolerance, rounding))


def refine(
    function: Callable[[Tensor], Tensor], nodes: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Quarter every cell in which a function is not linear within the tolerance.

    Three points inside a cell are compared: in its middle alone, a step that lies exactly there
    would look linear. ``nodes`` are the locations to start from, increasing, (nodes,); returned are
    locations, increasing, and their values.
    """
    values = function(nodes)
    shares = torch.linspace(0, 1, 5, dtype=nodes.dtype, device=nodes.device)[:, None]
    known = [(nodes, values)]
    starts, widths = nodes[:-1], nodes.diff()
    left, rise = values[:-1], values.diff()
    count = len(nodes)
    for _ in range(MAX_QUARTERINGS):
        if not starts.numel() or count >= MAX_NODES:
            break
        inner = starts + widths * shares[1:-1]
        exact = function(inner)
        known.append((inner.flatten(), exact.flatten()))
        count += inner.numel()
        curved = ((exact - left - rise * shares[1:-1]).abs() > tolerance).any(0)
        corners = torch.cat([left[None], exact, (left + rise)[None]])[:, curved]
        starts = (starts + widths * shares[:-1])[:, curved].flatten()
        widths = (widths[curved] / 4).expand(4, -1).flatten()
        left, rise = corners[:-1].flatten(), corners.diff(dim=0).flatten()
    locations, order = torch.cat([part[0] for part in known]).sort()
    return locations, torch.cat([part[1] for part in known])[order]
