"""The training world's mean label as a function of the location p, tabulated once for all its uses.

    m(p) = E_train[y | p] = p + sigma^2 d log E(p) / dp      (sigma held fixed in the derivative)

(Efron, Tweedie's Formula and Selection Bias, 2011). The remap of a plain regressor (``posthoc``)
reads the table backwards; the guard of noise that follows the prediction (``noise_guard``) looks
where it falls.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from depthbal.losses.kernel.evidence import SigmaOf
from depthbal.losses.kernel.exact import Components, Wanted, exact_evidence
from depthbal.priors import GaussianMixture

# Largest error of the tabulated m(p), as a share of the labels' standard deviation.
TOLERANCE = 1e-7
# At a distance d from the labels float64 knows m to this number times d (d / sigma)^2, because the
# posterior's exponents are as large as (d / sigma)^2 / 2 and p cancels; finer is only noise.
ROUNDING = 1e-15
START_CELLS = 64
MAX_LABEL_NODES = 1024
MAX_NODES = 2**18
MAX_QUARTERINGS = 24
# Pieces of doubling width to either side: the table ends a million widths of the first one away,
# where rounding is still far below the tolerance.
MAX_PIECES = 20


class MeanTable:
    """Locations p, increasing, and their m(p), tabulated as far as they are asked for.

    A first piece covers the labels, or the given ends; further ones, each twice as wide as the one
    before, continue it to either side, the same ones whatever is asked first. Every piece is
    refined until m is linear between its nodes within the tolerance (default 1e-7 standard
    deviations of the labels).
    """

    def __init__(
        self,
        prior: GaussianMixture,
        noise_sigma: float | SigmaOf,
        first: tuple[float, float],
        tolerance: float | None = None,
    ) -> None:
        self._mixture = Components.of(prior, torch.device("cpu"))
        weights, means = self._mixture.log_weights.exp(), self._mixture.means
        spread = weights @ (self._mixture.variances + (means - weights @ means) ** 2)
        self._tolerance = tolerance or TOLERANCE * math.sqrt(float(spread))
        self._noise, self._first = noise_sigma, first
        self._pieces = {-1: 0, 1: 0}
        # At a small sigma m is a staircase with a step between two labels; an even grid could have
        # the steps' own spacing and would see a straight line.
        labels = means[weights > 0].sort().values
        labels = labels[:: math.ceil(len(labels) / MAX_LABEL_NODES)]
        self.locations, self.means = self._piece(*first, labels)

    def climb(self, side: int, goal: float, fall: float = math.inf) -> tuple[float, float]:
        """Add pieces at the lower (-1) or upper (1) end until m gets to the goal, or falls.

        Returned is how far m gets before it first falls back by more than ``fall``, and the
        location where it does, infinite where it does not.
        """
        while True:
            within = side * self.locations >= side * self._first[0]
            places, means = self.locations[within], side * self.means[within]
            if side < 0:
                places, means = places.flip(0), means.flip(0)
            highest = means.cummax(0).values
            falls = (highest - means > fall).nonzero()
            if len(falls):
                return side * float(highest[falls[0]]), float(places[falls[0]])
            if highest[-1] >= side * goal or self._pieces[side] >= MAX_PIECES:
                return side * float(highest[-1]), side * math.inf
            width = (self._first[1] - self._first[0]) * 2 ** self._pieces[side]
            end = float(self.locations[0 if side < 0 else -1])
            found = self._piece(*sorted((end, end + side * width)))
            for name, more in zip(("locations", "means"), found, strict=True):
                known = getattr(self, name)  # the shared node once
                parts = (known, more[1:]) if side > 0 else (more[:-1], known)
                setattr(self, name, torch.cat(parts))
            self._pieces[side] += 1

    def invert(self, means: Tensor) -> Tensor:
        """Return p with m(p) = means (float64, finite), linear between nodes, at most the ends."""
        if not means.numel():
            return means
        low, high = torch.stack(means.aminmax()).tolist()
        self.climb(-1, low)
        self.climb(1, high)
        # Rounding must not make the table decrease where m is flat.
        table = self.means.cummax(0).values.to(means.device)
        values = self.locations.to(means.device)
        inside = means.clamp(table[0], table[-1]).contiguous()
        right = torch.searchsorted(table, inside).clamp(1, len(table) - 1)
        start, stop = table[right - 1], table[right]
        share = (inside - start) / (stop - start).clamp(min=torch.finfo(means.dtype).tiny)
        return torch.lerp(values[right - 1], values[right], share)

    def _piece(self, low: float, high: float, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return refined locations between two ends, the given ones among them, and their m."""
        # Tensors that are kept must not belong to the evaluation loop's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            nodes = torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64)
            if among is not None:
                nodes = torch.cat([nodes, among[(among > low) & (among < high)]]).sort().values
            smallest, largest = self._mixture.means.aminmax()
            distance = float(torch.maximum(smallest - nodes[0], nodes[-1] - largest))
            relative = max(1.0, distance / float(self._sigma(nodes).min()))
            return refine(
                self._mean, nodes, max(self._tolerance, ROUNDING * distance * relative**2)
            )

    def _sigma(self, p: Tensor) -> Tensor:
        sigma = self._noise(p).detach() if callable(self._noise) else self._noise
        return torch.as_tensor(sigma, dtype=torch.float64)

    def _mean(self, p: Tensor) -> Tensor:
        noise, points = self._sigma(p), p.flatten()
        noise = noise.flatten() if noise.ndim else noise
        slope = exact_evidence(points, noise, self._mixture, Wanted(by_sigma=False)).by_preds
        assert slope is not None
        return (points + noise**2 * slope).view(p.shape)


def refine(
    function: Callable[[Tensor], Tensor], nodes: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Quarter the cells between nodes until a function is linear in each within the tolerance.

    Three points inside a cell are compared: in its middle alone, a step that lies exactly there
    would look linear. Returned are locations, increasing, and their values.
    """
    values = function(nodes)
    shares = torch.linspace(0, 1, 5, dtype=nodes.dtype)[:, None]
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
