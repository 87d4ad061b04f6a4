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
    occupied = counts > 0
    if isinstance(target, str):
        inverse = _inverse_world(edges, target, tau)
    else:
        share = _on_edges(edges, *target)
        _require_same_support(edges, occupied, share > 0)
        density = np.divide(share, np.diff(edges), out=np.ones_like(share), where=share > 0)
        inverse = np.diff(edges) * density**-tau
    # 0^0 = 1: without balancing the kernel is flat over all bins, empty ones included.
    mass: FloatArray = (counts / counts.sum() / np.diff(edges)) ** tau * inverse
    lost = occupied & ~((mass > 0) & np.isfinite(mass))
    if lost.any():
        raise ValueError(
            "expected ratios p_train / p_target that are positive and finite, got "
            f"{mass[lost][0]:g} in {_bins(edges, lost)}: leave these labels out of the histogram"
        )
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
        if not edges[0] > 0:
            raise ValueError(
                "expected positive labels for the target 'log_uniform', got bin 0 "
                f"[{edges[0]:g}, {edges[1]:g}]: start the histogram's edges above 0"
            )
        relative = edges / edges[0]
        return np.asarray(np.diff(relative ** (1 + tau)) / (1 + tau))
    # "exp_uniform": p_target = e^y
    return np.asarray(np.exp(-tau * (low - edges[0])) * -np.expm1(-tau * (high - low)) / tau)


def _on_edges(edges: FloatArray, other: FloatArray, counts: FloatArray) -> FloatArray:
    """Spread each bin's mass evenly and return the share of it in every bin of ``edges``."""
    pieces = np.union1d(edges, other)
    middle = (pieces[:-1] + pieces[1:]) / 2
    source = np.searchsorted(other, middle) - 1
    inside = (source >= 0) & (source < len(counts))
    density = counts / counts.sum() / np.diff(other)
    mass = np.where(inside, density[source.clip(0, len(counts) - 1)] * np.diff(pieces), 0.0)
    into = np.searchsorted(edges, middle) - 1
    within = (into >= 0) & (into < len(edges) - 1)
    outside = mass[~within].sum()
    if outside > 1e-6:
        raise ValueError(
            f"expected a target on the training labels' range [{edges[0]:g}, {edges[-1]:g}], got "
            f"{outside:.2%} of its mass outside: nothing can be learned there"
        )
    share = np.bincount(into[within], mass[within], minlength=len(edges) - 1)
    return np.where(share > _NEGLIGIBLE, share, 0.0)


def _require_same_support(
    edges: FloatArray, occupied: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]
) -> None:
    """Raise a ValueError where only one of training labels and target has mass."""
    for where, ratio, reason in (
        (occupied & ~wanted, "infinite", "training labels but no mass of the target"),
        (wanted & ~occupied, "zero", "mass of the target but no training labels"),
    ):
        if where.any():
            raise ValueError(
                f"the ratio p_train / p_target is {ratio} in {_bins(edges, where)}, which has "
                f"{reason}: use wider bins, or the same label range for both histograms"
            )


def _bins(edges: FloatArray, where: npt.NDArray[np.bool_]) -> str:
    """Name the first of the chosen bins and count the others."""
    first, others = int(np.argmax(where)), int(where.sum()) - 1
    more = f" and {others} more" if others else ""
    return f"bin {first} [{edges[first]:g}, {edges[first + 1]:g}]{more}"
