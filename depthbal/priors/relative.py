"""Weighing training labels against the world that the loss shall be balanced for."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

World = Literal["uniform", "log_uniform", "exp_uniform"]
WORLDS: tuple[str, ...] = get_args(World)

_NEGLIGIBLE = 1e-12  # share of mass that rounding may move between bins


def relative_mass(
    edges: FloatArray,
    counts: FloatArray,
    target: World | tuple[FloatArray, FloatArray],
    tau: float,
) -> FloatArray:
    """Return the mass of (p_train / p_target)^tau in every bin, p_train constant within bins.

    The target is a named world, or the edges and counts of a histogram.
    """
    require_tau(tau)
    widths, occupied = np.diff(edges), counts > 0
    if isinstance(target, str):
        inverse = _inverse_world(edges, target, tau)
    else:
        share = _on_edges(edges, *target)
        _refuse(edges, occupied & (share == 0), "is infinite: no mass of the target is there")
        _refuse(edges, ~occupied & (share > 0), "is zero: no training labels are there")
        density = np.divide(share, widths, out=np.ones_like(share), where=share > 0)
        inverse = widths * density**-tau
    # 0^0 = 1: without balancing the kernel is flat over all bins, empty ones included.
    mass: FloatArray = (counts / counts.sum() / widths) ** tau * inverse
    _refuse(edges, occupied & ~((mass > 0) & np.isfinite(mass)), "is not positive and finite")
    return mass


def require_tau(tau: float) -> None:
    """Raise a ValueError unless tau lies in [0, 1]."""
    if not 0 <= tau <= 1:
        raise ValueError(
            f"expected tau in [0, 1], got {tau}: 0 balances nothing (plain MSE), 1 fully"
        )


def _inverse_world(edges: FloatArray, world: str, tau: float) -> FloatArray:
    """Return the integral of p_target^-tau over every bin, up to a constant."""
    low, high = edges[:-1], edges[1:]
    if world == "uniform" or tau == 0:
        return high - low
    if world == "log_uniform":  # p_target = 1 / y
        _refuse(edges, low <= 0, "needs positive labels: start the histogram's edges above 0")
        relative = edges / edges[0]
        return np.asarray(np.diff(relative ** (1 + tau)) / (1 + tau))
    # "exp_uniform": p_target = e^y
    return np.asarray(np.exp(-tau * (low - edges[0])) * -np.expm1(-tau * (high - low)) / tau)


def _on_edges(edges: FloatArray, other: FloatArray, counts: FloatArray) -> FloatArray:
    """Spread each bin's mass evenly and return the share of it in every bin of ``edges``."""
    pieces = np.union1d(edges, other)
    below = np.concatenate([[0.0], np.cumsum(counts / counts.sum())])
    mass = np.diff(np.interp(pieces, other, below))
    into = np.searchsorted(edges, (pieces[:-1] + pieces[1:]) / 2) - 1
    within = (into >= 0) & (into < len(edges) - 1)
    outside = mass[~within].sum()
    if outside > 1e-6:
        raise ValueError(
            f"expected a target on the training labels' range [{edges[0]:g}, {edges[-1]:g}], got "
            f"{outside:.2%} of its mass outside: nothing can be learned there"
        )
    share = np.bincount(into[within], mass[within], minlength=len(edges) - 1)
    return np.where(share > _NEGLIGIBLE, share, 0.0)


def _refuse(edges: FloatArray, where: npt.NDArray[np.bool_], reason: str) -> None:
    """Raise a ValueError that names the first of the chosen bins and counts the others."""
    if where.any():
        first, others = int(np.argmax(where)), int(where.sum()) - 1
        more = f" and {others} more" if others else ""
        raise ValueError(
            f"the ratio p_train / p_target {reason}; bin {first} [{edges[first]:g}, "
            f"{edges[first + 1]:g}]{more}: leave these labels out, or use wider bins on one range"
        )
