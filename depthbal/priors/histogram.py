"""A streaming histogram of training labels."""

import os
import warnings
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch

from depthbal.priors.files import Stored
from depthbal.priors.relative import WORLDS, World, relative_mass

FloatArray = npt.NDArray[np.float64]

_NEAR = 0.01  # of a bin's width: bfloat16 moves 0.7 by less than this share of 0.1


class Histogram(Stored):
    """Counts of labels per bin, collected in any number of passes with constant memory.

    Values outside the edges count in the first and last bin. With ``quantum`` q every value v
    stands for a label that was rounded to a multiple of q, and its mass is spread evenly over
    [v - q/2, v + q/2]: 8-bit depth (q = 10/255 m) puts 2 or 3 levels into a 0.1 m bin and would
    make neighbouring counts of a smooth distribution differ by up to 1.5 times.

    Args:
        edges: Increasing, finite bin edges, shape (B + 1,), in label units.
        counts: Mass per bin, shape (B,), not negative; zeros when omitted.
        quantum: Width of one quantisation level in label units, or None for continuous labels.

    Raises:
        ValueError: Arguments that are not as described.

    Example:
        >>> histogram = Histogram([0.0, 1.0, 2.0, 3.0])
        >>> histogram.update(np.array([0.5, 1.5, 1.6, 3.0])).counts.tolist()
        [1.0, 2.0, 1.0]
        >>> Histogram([0.0, 1.0, 2.0], quantum=0.5).update([1.0]).counts.tolist()
        [0.5, 0.5]
    """

    edges: FloatArray
    counts: FloatArray
    quantum: float | None

    def __init__(
        self,
        edges: npt.ArrayLike | torch.Tensor,
        counts: npt.ArrayLike | torch.Tensor | None = None,
        quantum: float | None = None,
    ) -> None:
        self.edges = as_float64(edges).copy()
        if self.edges.ndim != 1 or len(self.edges) < 2 or not np.all(np.diff(self.edges) > 0):
            raise ValueError(f"expected at least 2 increasing bin edges, got {self.edges!r}")
        bins = len(self.edges) - 1
        self.counts = np.zeros(bins) if counts is None else as_float64(counts).copy()
        if self.counts.shape != (bins,):
            raise ValueError(f"expected {bins} counts, one per bin, got {self.counts.shape}")
        if not (np.all(self.counts >= 0) and np.isfinite([*self.edges, *self.counts]).all()):
            raise ValueError("expected edges and counts that are finite, and no negative counts")
        if quantum is not None and not quantum > 0:
            raise ValueError(f"expected a positive quantum or None, got {quantum}")
        self.quantum = quantum
        self._warned = False

    @classmethod
    def regular(
        cls, low: float, high: float, bin_width: float, quantum: float | None = None
    ) -> Self:
        """Return an empty histogram whose bins of ``bin_width`` cover [low, high]."""
        bins = round((high - low) / bin_width)
        if bins < 1 or abs(low + bins * bin_width - high) > 1e-6 * bin_width:
            raise ValueError(f"[{low}, {high}] is not a whole number of bins of width {bin_width}")
        return cls(np.linspace(low, high, bins + 1), quantum=quantum)

    def update(self, values: npt.ArrayLike | torch.Tensor) -> Self:
        """Add finite labels of any shape; those outside the edges are warned of once."""
        flat = as_float64(values).ravel()
        finite = np.isfinite(flat)
        if not finite.all():
            raise ValueError(
                f"expected finite labels, got {np.count_nonzero(~finite)} NaN or infinite"
            )
        if flat.size == 0:
            return self
        if not self._warned:
            self._warn_of_labels_outside(flat)
        if self.quantum is None:
            index = np.searchsorted(self.edges, flat, side="right") - 1
            index = np.clip(index, 0, len(self.counts) - 1)
            self.counts += np.bincount(index, minlength=len(self.counts))
        else:
            cumulative = _spread_below(flat, self.edges[1:-1], self.quantum)
            mass = np.diff(np.concatenate([[0.0], cumulative, [float(flat.size)]]))
            self.counts += np.maximum(mass, 0.0)  # an empty bin must not end at minus 1e-12
        return self

    def _warn_of_labels_outside(self, values: FloatArray) -> None:
        low, high = float(self.edges[0]), float(self.edges[-1])
        # rounding, or a level's spread, may put a label at the edge a little beyond it
        near = max(_NEAR * float(self.widths[[0, -1]].min()), (self.quantum or 0.0) / 2)
        outside = int(np.count_nonzero((values < low - near) | (values > high + near)))
        if outside:
            self._warned = True
            warnings.warn(
                f"{outside:,} of {values.size:,} labels lie outside the histogram's edges {low:g} "
                f"to {high:g} (they reach from {values.min():g} to {values.max():g}) and count in "
                "its first and last bin, which makes these look more common than they are: give "
                "edges that hold all labels, or leave out those that are none; later updates of "
                "this histogram are not checked",
                stacklevel=3,
            )

    @property
    def centers(self) -> FloatArray:
        """Middle of every bin, shape (B,)."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def widths(self) -> FloatArray:
        """Width of every bin, shape (B,)."""
        return np.diff(self.edges)

    @property
    def densities(self) -> FloatArray:
        """Share of the mass per label unit in every bin, shape (B,)."""
        self.require_mass()
        return np.asarray(self.counts / self.total / self.widths)

    @property
    def total(self) -> float:
        """Sum of all counts."""
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean label, from the bin centres."""
        self.require_mass()
        return float(self.counts @ self.centers / self.total)

    def require_mass(self) -> None:
        """Raise a ValueError where no label has been counted."""
        if not self.total > 0:
            raise ValueError(
                "expected a histogram with counts, got an empty one: update it with training labels"
            )

    def relative_to(
        self,
        target: "World | Histogram | str | os.PathLike[str]" = "uniform",
        tau: float = 1.0,
    ) -> Self:
        """Return the kernel that balances for another world than the uniform one.

            k(y) = (p_train(y) / p_target(y))^tau

        Theorem 1 of the Balanced MSE paper holds for any p_target: with k in the place of p_train
        the regressor's output is the location of p_target(y | x). The tempered kernel is that of
        the world p_train^(1 - tau) p_target^tau, halfway between the data (tau = 0: plain MSE on
        the bins' range) and the target. Its integral over every bin is exact for labels spread
        evenly within their bins. A named world covers the bins that hold training labels; a
        histogram has to cover the same bins.

        Args:
            target: ``"uniform"``; ``"log_uniform"``, p_target ~ 1 / y; ``"exp_uniform"``,
                p_target ~ e^y, which balances depth for labels that are log depth; a Histogram, or
                a file that ``save`` wrote.
            tau: Share of balancing in [0, 1].

        Returns:
            The kernel's mass per bin, on the same edges, scaled to the same total (a factor
            changes no gradient).

        Raises:
            ValueError: An empty histogram, a ratio that is zero, negative or infinite (the message
                names the bin), or tau outside [0, 1].

        Example:
            >>> histogram = Histogram([1.0, 2.0, 3.0], [6, 2])
            >>> histogram.relative_to("uniform", tau=0.0).counts.tolist()
            [4.0, 4.0]
            >>> ratio = histogram.relative_to("log_uniform").counts  # 6 x 1.5 to 2 x 2.5
            >>> round(float(ratio[0] / ratio[1]), 6)
            1.8
        """
        self.require_mass()
        if target == "uniform" and tau == 1:
            return type(self)(self.edges, self.counts)  # exactly, without rounding
        world: World | tuple[FloatArray, FloatArray]
        if isinstance(target, str) and target in WORLDS:
            world = cast(World, target)
        else:
            chosen = target if isinstance(target, Histogram) else Histogram.load(target)
            chosen.require_mass()
            world = chosen.edges, chosen.counts
        mass = relative_mass(self.edges, self.counts, world, tau)
        return type(self)(self.edges, mass * (self.total / mass.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "kind": "Histogram",
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "quantum": self.quantum,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the histogram that ``to_dict`` described."""
        return cls(content["edges"], content["counts"], content.get("quantum"))


def as_float64(values: npt.ArrayLike | torch.Tensor) -> FloatArray:
    """Return values as an array on the CPU."""
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def _spread_below(values: FloatArray, edges: FloatArray, quantum: float) -> FloatArray:
    """Return the mass below every edge when each value is spread over [v - q/2, v + q/2]."""
    levels, counts = np.unique(values, return_counts=True)
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * levels)])
    whole = np.searchsorted(levels, edges - quantum / 2, side="right")
    touched = np.searchsorted(levels, edges + quantum / 2, side="left")
    partial_mass = mass[touched] - mass[whole]
    partial_moment = moment[touched] - moment[whole]
    inside: FloatArray = ((edges + quantum / 2) * partial_mass - partial_moment) / quantum
    return mass[whole] + inside
