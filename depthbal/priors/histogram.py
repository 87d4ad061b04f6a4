"""A streaming histogram of training labels, also weighed against the world to balance for."""

import os
import warnings
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import torch

from depthbal.io import Stored

FloatArray = npt.NDArray[np.float64]
World = Literal["uniform", "log_uniform", "exp_uniform"]
Spacing = Literal["uniform", "log", "quantile"]

_NEAR = 0.01  # of a bin's width: bfloat16 moves 0.7 by less than this share of 0.1
_LOG_BINS = 1024  # of logarithms
_NEGLIGIBLE = 1e-12  # share of mass that rounding may move between bins


class Histogram(Stored):
    """Counts of labels per bin, collected in any number of passes with constant memory.

    Labels and edges are compared in float32, so that 0.8 lies in the bin from 0.8 on however either
    was rounded; values outside the edges count in the first and last bin. With ``quantum`` q every
    value v stands for a label that was rounded to a multiple of q, and its mass is spread evenly
    over [v - q/2, v + q/2]: 8-bit depth (q = 10/255 m) puts 2 or 3 levels into a 0.1 m bin and
    would make neighbouring counts of a smooth distribution differ by up to 1.5 times.

    A label of +inf is one that is only known to lie beyond the last edge, such as the depth of sky:
    it counts in ``beyond`` and in no bin, and densities are those of the others.

    Args:
        edges: Increasing, finite bin edges, shape (B + 1,), in label units.
        counts: Mass per bin, shape (B,), not negative; zeros when omitted.
        quantum: Width of one quantisation level in label units, or None for continuous labels.
        beyond: Mass that is only known to lie beyond the last edge.

    Raises:
        ValueError: Arguments that are not as described.

    Example:
        >>> histogram = Histogram([0.0, 1.0, 2.0, 3.0])
        >>> histogram.update(np.array([0.5, 1.5, 1.6, 3.0])).counts.tolist()
        [1.0, 2.0, 1.0]
        >>> Histogram([0.0, 1.0, 2.0], quantum=0.5).update([1.0]).counts.tolist()
        [0.5, 0.5]
    """

    def __init__(
        self,
        edges: npt.ArrayLike | torch.Tensor,
        counts: npt.ArrayLike | torch.Tensor | None = None,
        quantum: float | None = None,
        beyond: float = 0.0,
    ) -> None:
        self.edges = as_float64(edges).copy()
        single = self.edges.astype(np.float32)  # in which labels are compared with them
        if single.ndim != 1 or len(single) < 2 or not np.all(np.diff(single) > 0):
            raise ValueError(
                f"expected at least 2 edges, increasing in float32 too, got {self.edges!r}"
            )
        bins = len(self.edges) - 1
        self.counts = np.zeros(bins) if counts is None else as_float64(counts).copy()
        if self.counts.shape != (bins,):
            raise ValueError(f"expected {bins} counts, one per bin, got {self.counts.shape}")
        self.beyond = float(beyond)
        masses = [*self.counts, self.beyond]
        if not (min(masses) >= 0 and np.isfinite([*self.edges, *masses]).all()):
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
        edges = np.linspace(low, high, bins + 1)
        edges[np.abs(edges) < 1e-6 * bin_width] = 0.0  # near which no label's rounding is relative
        return cls(edges, quantum=quantum)

    def update(self, values: npt.ArrayLike | torch.Tensor) -> Self:
        """Add labels of any shape, +inf for ``beyond``; those outside the edges are warned of once.

        NaN and -inf are a ValueError.
        """
        flat = as_float64(values).ravel()
        finite = np.isfinite(flat)
        if not finite.all():
            beyond = np.count_nonzero(flat == np.inf)
            if bad := np.count_nonzero(~finite) - beyond:
                raise ValueError(
                    f"expected finite labels, or inf for beyond, got {bad} NaN or -inf"
                )
            self.beyond += beyond
            flat = flat[finite]
        if flat.size == 0:
            return self
        if not self._warned:
            self._warn_of_labels_outside(flat)
        if self.quantum is None:
            index = bin_per_label(torch.from_numpy(flat), torch.from_numpy(self.edges))
            self.counts += np.bincount(index.numpy(), minlength=len(self.counts))
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
                "its first and last bin: give edges that hold all labels, or leave out those that "
                "are none; later updates of this histogram are not checked",
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

    def density_below(self, end: float, width: float) -> float:
        """Return the share of the mass per label unit over the last ``width`` below a label."""
        low, high = np.interp([end - width, end], self.edges, self._below)
        return float(high - low) / (width * self.total)

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

    def places(
        self, count: int, spacing: Spacing = "uniform", ends: tuple[float, float] | None = None
    ) -> FloatArray:
        """Return so many labels from end to end, by default of the edges.

        They are evenly spaced, or each the same ratio above the one before ("log"), or such that
        as many labels lie between any two ("quantile").

        Example:
            >>> Histogram([1.0, 2.0, 16.0], [1, 1]).places(3, "log").tolist()
            [1.0, 4.0, 16.0]
        """
        low, high = ends or (float(self.edges[0]), float(self.edges[-1]))
        if spacing == "log" and not low > 0:
            raise ValueError(f"log bins need a label_range above 0, got {low:g} to {high:g}")
        if spacing != "quantile":
            return np.asarray((np.geomspace if spacing == "log" else np.linspace)(low, high, count))
        shares = np.linspace(0, 1, count)
        found = np.interp(shares, self._below / self.total, self.edges).clip(low, high)
        found[[0, -1]] = low, high
        if not (np.diff(found) > 0).all():
            raise ValueError(f"{count} places are too many quantiles for these labels")
        return np.asarray(found)

    def rebinned(self, edges: npt.ArrayLike) -> Self:
        """Return the same labels, even within their bins, in other bins of the same range."""
        counts = np.diff(np.interp(as_float64(edges), self.edges, self._below))
        return type(self)(edges, counts, beyond=self.beyond)

    def logarithms(self) -> Self:
        """Return the histogram of the labels' logarithms, 1,024 bins of one width.

        Raises:
            ValueError: Edges that do not begin above 0.
        """
        if not self.edges[0] > 0:
            raise ValueError(
                f"expected labels above 0, of which there are logarithms, got {self.edges[0]:g}"
            )
        low, high = np.log(self.edges[[0, -1]])
        edges = np.linspace(low, high, _LOG_BINS + 1)
        return type(self)(edges, self.rebinned(np.exp(edges)).counts, beyond=self.beyond)

    @property
    def _below(self) -> FloatArray:
        """Mass below every edge, shape (B + 1,)."""
        self.require_mass()
        return np.concatenate([[0.0], np.cumsum(self.counts)])

    def relative_to(
        self, target: "World | Histogram | str | os.PathLike[str]" = "uniform", tau: float = 1.0
    ) -> Self:
        """Return the kernel that balances for another world than the uniform one.

            k(y) = (p_train(y) / p_target(y))^tau

        Theorem 1 of the Balanced MSE paper holds for any p_target: with k in the place of p_train
        the regressor's output is the location of p_target(y | x). The tempered kernel is that of
        the world p_train^(1 - tau) p_target^tau; tau = 0 is plain MSE on the bins' range. Labels
        lie evenly in their bins. A target histogram has to cover the bins that hold labels.

        Args:
            target: ``"uniform"``; ``"log_uniform"``, p_target ~ 1 / y; ``"exp_uniform"``, ~ e^y,
                for labels that are log depth; a Histogram, or a file that ``save`` wrote.
            tau: Share of balancing in [0, 1].

        Returns:
            The kernel's mass per bin, on the same edges, scaled to the same total.

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
        require_tau(tau)
        if target in get_args(World):
            inverse = self._inverse_world(str(target), tau)
        else:
            other = target if isinstance(target, Histogram) else Histogram.load(target)
            share = self._share_of(other)
            self._refuse((self.counts > 0) & (share == 0), "is infinite: the target is empty there")
            self._refuse((self.counts == 0) & (share > 0), "is zero: no training labels are there")
            density = np.divide(share, self.widths, out=np.ones_like(share), where=share > 0)
            inverse = self.widths * density**-tau
        # 0^0 = 1: without balancing the kernel is flat over all bins, empty ones included.
        mass = self.densities**tau * inverse
        wrong = (self.counts > 0) & ~((mass > 0) & np.isfinite(mass))
        self._refuse(wrong, "is not positive and finite")
        return type(self)(self.edges, mass * (self.total / mass.sum()))

    def _inverse_world(self, world: str, tau: float) -> FloatArray:
        """Return the integral of p_target^-tau over every bin, up to a constant."""
        low, high = self.edges[:-1], self.edges[1:]
        if world == "uniform" or tau == 0:
            return self.widths
        if world == "log_uniform":  # p_target = 1 / y
            self._refuse(low <= 0, "needs positive labels: start the histogram's edges above 0")
            return np.asarray(np.diff((self.edges / low[0]) ** (1 + tau)) / (1 + tau))
        inverse = np.exp(-tau * (low - low[0])) * -np.expm1(-tau * (high - low)) / tau
        return np.asarray(inverse)  # p_target = e^y

    def _share_of(self, other: "Histogram") -> FloatArray:
        """Return the share of another histogram's mass, even within its bins, in every bin."""
        share = other.rebinned(self.edges).counts / other.total
        if (outside := 1 - share.sum()) > 1e-6:
            raise ValueError(
                "expected a target on the training labels' range "
                f"[{self.edges[0]:g}, {self.edges[-1]:g}], got {outside:.2%} of its mass outside: "
                "nothing can be learned there"
            )
        return np.where(share > _NEGLIGIBLE, share, 0.0)

    def _refuse(self, where: npt.NDArray[np.bool_], reason: str) -> None:
        """Raise a ValueError that names the first of the chosen bins and counts the others."""
        if where.any():
            first, others = int(np.argmax(where)), int(where.sum()) - 1
            more = f" and {others} more" if others else ""
            low, high = self.edges[first : first + 2]
            raise ValueError(
                f"the ratio p_train / p_target {reason}; bin {first} [{low:g}, {high:g}]{more}: "
                "leave these labels out, or use wider bins on one range"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "kind": "Histogram",
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "quantum": self.quantum,
            "beyond": self.beyond,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the histogram that ``to_dict`` described."""
        quantum, beyond = content.get("quantum"), content.get("beyond", 0.0)
        return cls(content["edges"], content["counts"], quantum, beyond)


def bin_per_label(labels: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Return the number of every label's bin in [0, B), elementwise, as ``Histogram`` counts it."""
    interior = edges[1:-1].float().contiguous()
    return torch.bucketize(labels.detach().float().contiguous(), interior, right=True)


def require_tau(tau: float) -> None:
    """Raise a ValueError unless tau lies in [0, 1]."""
    if not 0 <= tau <= 1:
        raise ValueError(
            f"expected tau in [0, 1], got {tau}: 0 balances nothing (plain MSE), 1 fully"
        )


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
