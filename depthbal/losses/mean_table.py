"""The training world's mean label as a function of the location p, and its inverse."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from depthbal.losses.kernel.evidence import log_evidence
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


def training_mean(locations: Tensor, prior: GaussianMixture, noise_sigma: Tensor | float) -> Tensor:
    """Return m(p) = E_train[y | p] = p + sigma^2 d log E(p) / dp in float64, detached.

    Args:
        locations: Locations p of any shape, label units.
        prior: Distribution of the training labels.
        noise_sigma: Noise scale sigma > 0 in label units, one element or one per location; a sigma
            that follows p is held fixed in the derivative, as the loss does.

    Source: Tweedie's formula (Efron, Tweedie's Formula and Selection Bias, 2011).

    Example:
        >>> labels = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])
        >>> training_mean(torch.tensor([0.0, 1.0]), labels, 1.0)  # tanh(p / sigma^2)
        tensor([0.0000, 0.7616], dtype=torch.float64)
    """
    # Evaluation loops run in inference mode, in which the derivative of log E is not to be had.
    with torch.inference_mode(False), torch.enable_grad():
        points = locations.detach().double().clone().requires_grad_()
        sigma = torch.as_tensor(noise_sigma, dtype=torch.float64, device=points.device)
        sigma = sigma.detach().clone()  # a tensor made in inference mode cannot be used here
        (slope,) = torch.autograd.grad(log_evidence(points, prior, sigma).sum(), points)
    return points.detach() + sigma**2 * slope


class MeanTable:
    """Locations p and their m(p), tabulated piece by piece as far as they are asked for.

    A first piece covers the labels; further ones, each twice as wide as the one before, continue it
    to either side. Every piece is refined until m is linear between its nodes within 1e-7 standard
    deviations of the labels. The pieces are the same in whatever order they are asked for, and so
    is the inverse.

    Args:
        prior: Distribution of the training labels, scalars.
        noise_sigma: Noise scale sigma > 0 in label units.

    Example:
        >>> table = MeanTable(GaussianMixture([1.0], [2.0], [3.0]), 1.0)
        >>> table.invert(torch.tensor([2.0, 500.0], dtype=torch.float64))  # 2 + 4 / 3 (m - 2)
        tensor([  2., 666.], dtype=torch.float64)
    """

    def __init__(self, prior: GaussianMixture, noise_sigma: float) -> None:
        on_cpu = (part.detach().cpu() for part in (prior.weights, prior.means, prior.variances))
        self._prior = GaussianMixture.unchecked(*on_cpu)
        self._sigma = noise_sigma
        weights, means, variances = (
            self._prior.weights,
            self._prior.means,
            self._prior.variances,
        )
        spread = weights @ (variances + (means - weights @ means) ** 2)
        self._tolerance = TOLERANCE * math.sqrt(float(spread))
        self._width = 0.0
        self._pieces = {-1: 0, 1: 0}
        self.locations = self.means = torch.empty(0, dtype=torch.float64)

    def invert(self, means: Tensor) -> Tensor:
        """Return p with m(p) = means, linear between the nodes.

        Args:
            means: float64, any shape and device, finite, not empty; values that m does not take get
                the table's end, which is 2^40 widths of the labels away.
        """
        # Tensors kept between calls must not belong to the evaluation loop's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            self._cover(*torch.stack(means.aminmax()).tolist())
        table, values = self.means.to(means.device), self.locations.to(means.device)
        inside = means.clamp(table[0], table[-1]).contiguous()
        right = torch.searchsorted(table, inside).clamp(1, len(table) - 1)
        start, stop = table[right - 1], table[right]
        share = (inside - start) / (stop - start).clamp(min=torch.finfo(means.dtype).tiny)
        return torch.lerp(values[right - 1], values[right], share)

    def _cover(self, low: float, high: float) -> None:
        """Add pieces until the means from ``low`` to ``high`` are in the table."""
        if not len(self.locations):
            self.locations, self.means = self._piece(self._first_nodes())
            self._width = float(self.locations[-1] - self.locations[0])
        while self.means[0] > low and self._pieces[-1] < MAX_PIECES:
            self._extend(-1)
        while self.means[-1] < high and self._pieces[1] < MAX_PIECES:
            self._extend(1)

    def _first_nodes(self) -> Tensor:
        """Return the nodes from which the first piece is refined, the labels among them.

        At a small sigma m is a staircase with a step between two labels; an even grid could have
        the steps' own spacing and would see a straight line.
        """
        present = self._prior.means[self._prior.weights > 0].sort().values
        every = math.ceil(len(present) / MAX_LABEL_NODES)
        even = torch.linspace(
            float(present[0]) - 4 * self._sigma,
            float(present[-1]) + 4 * self._sigma,
            START_CELLS + 1,
            dtype=torch.float64,
        )
        return torch.cat([even, present[::every]]).sort().values

    def _extend(self, side: int) -> None:
        """Add the next piece at the lower (-1) or upper (1) end."""
        width = self._width * 2 ** self._pieces[side]
        self._pieces[side] += 1
        end = float(self.locations[0 if side < 0 else -1])
        low, high = sorted((end, end + side * width))
        nodes = torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64)
        piece = self._piece(nodes)
        kept = slice(None, -1) if side < 0 else slice(1, None)  # the shared node once
        parts = [(piece[0][kept], piece[1][kept]), (self.locations, self.means)][::-side]
        self.locations = torch.cat([part[0] for part in parts])
        # Rounding must not make the table decrease where m is flat.
        self.means = torch.cat([part[1] for part in parts]).cummax(0).values

    def _piece(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined locations and their means."""
        low, high = self._prior.means.aminmax()
        distance = float(torch.maximum(low - nodes[0], nodes[-1] - high))
        rounding = ROUNDING * distance * max(1.0, distance / self._sigma) ** 2
        tolerance = max(self._tolerance, rounding)
        return refine(lambda p: training_mean(p, self._prior, self._sigma), nodes, tolerance)


def refine(
    function: Callable[[Tensor], Tensor], nodes: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Quarter every cell in which an increasing function is not linear within the tolerance.

    Three points inside a cell are compared: in its middle alone, a step that lies exactly there
    would look linear.

    Args:
        function: From locations (n,) to values (n,).
        nodes: Increasing locations to start from, (nodes,).
        tolerance: Largest difference from the straight line at the points that are compared.

    Returns:
        Locations, increasing, and their values, not decreasing.
    """
    values = function(nodes)
    shares = torch.linspace(0, 1, 5, dtype=nodes.dtype, device=nodes.device)[:, None]
    known = [(nodes, values)]
    starts, widths = nodes[:-1], nodes.diff()
    left, rise = values[:-1], values.diff()
    count = len(nodes)
    while starts.numel() and count < MAX_NODES:
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
    values = torch.cat([part[1] for part in known])[order]
    # Rounding must not make the table decrease where the function is flat.
    return locations, values.cummax(0).values
