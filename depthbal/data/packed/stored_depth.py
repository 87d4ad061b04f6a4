"""Depth as a packed file stores it: levels of 8 or 16 bit, and what one level means."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthbal.data.checks import check_depth
from depthbal.data.images import MILLIMETRE, default_scale, to_metres
from depthbal.errors import DataError

_MOST = 65535


class StoredDepth(NamedTuple):
    """Levels uint8 or uint16 (H, W) with 0 = no depth, and the metres per level."""

    levels: NDArray[Any]
    scale: float


def store_depth(
    raw: NDArray[Any],
    scale: float | None,
    invalid: Sequence[float],
    name: str,
    step: float = MILLIMETRE,
) -> StoredDepth:
    """Return depth as levels: 8 and 16 bit as they are, anything else rounded to steps.

    Args:
        raw: (H, W) in the source's units.
        scale: metres per unit, None as for `read_depth`.
        invalid: values that mean "no depth".
        name: what messages call it.
        step: metres per level for numbers that are not of 8 or 16 bit; they move by half of it at
            most.

    Raises:
        DataError: implausible depth, or depth beyond 65,535 steps.

    Example:
        >>> store_depth(np.array([[0.0, 1.2346]]), None, (0,), "a.npy")
        StoredDepth(levels=array([[   0, 1235]], dtype=uint16), scale=0.001)
    """
    if raw.dtype in (np.uint8, np.uint16):
        scale = default_scale(raw.dtype, name) if scale is None else scale
        levels = raw.copy()
        for value in invalid:
            levels[raw == value] = 0
        check_depth(to_metres(levels, scale, (0,), name), name)
        return StoredDepth(levels, scale)
    metres = to_metres(raw, scale, invalid, name)
    check_depth(metres, name)
    steps = np.rint(metres.astype(np.float64) / step)
    if steps.max() > _MOST:
        raise DataError(
            f"{name}: {metres.max():g} m is more than {_MOST} steps of {step:g} m; give a step of "
            f"at least {metres.max() / _MOST:.2g} m (--step)"
        )
    return StoredDepth(steps.astype(np.uint16), step)
