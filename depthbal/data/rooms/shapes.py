"""Solids that a ray can meet: boxes, upright cylinders and spheres."""

from collections.abc import Sequence
from math import cos, sin
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from depthbal.data.rooms.camera import Vector

Floats: TypeAlias = NDArray[np.floating[Any]]
BOX, CYLINDER, SPHERE = 0, 1, 2
TINY = np.float32(1e-20)  # keeps 1 / 0 and 0 * inf away where a ray is parallel to a plane
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


class Solid(NamedTuple):
    """A convex solid, standing upright and turned about the vertical.

    Args:
        kind: `BOX`, `CYLINDER` (upright) or `SPHERE`.
        centre: its middle, in metres.
        half: half of its extent along its own x, y, z, in metres (a radius counts as half).
        material: index of its material in the scene.
        yaw: turn to the right about the vertical, in radians.
        shadows: whether it takes light away from others; walls do not.
    """

    kind: int
    centre: Vector
    half: Vector
    material: int
    yaw: float = 0.0
    shadows: bool = True


def table(solids: Sequence[Solid]) -> NDArray[np.float64]:
    """Return centre, half, cos(yaw) and sin(yaw) of every solid, shape (S, 8)."""
    return np.array([(*s.centre, *s.half, cos(s.yaw), sin(s.yaw)) for s in solids])


def corners(solids: Sequence[Solid]) -> NDArray[np.float64]:
    """Return the corners (S, 8, 3) of the solids' bounding boxes, in metres."""
    rows = table(solids)[:, None]
    x, y, z = np.moveaxis(CORNERS * rows[..., 3:6], -1, 0)
    c, s = rows[..., 6], rows[..., 7]
    return np.stack((c * x + s * z, y, c * z - s * x), axis=-1) + rows[..., :3]


def to_local(solid: Solid, x: Any, y: Any, z: Any) -> tuple[Any, Any, Any]:
    """Turn a world direction (floats or arrays) into the solid's own axes."""
    if not solid.yaw:
        return x, y, z
    c, s = np.float32(cos(solid.yaw)), np.float32(sin(solid.yaw))
    return c * x - s * z, y, s * x + c * z


def span(solid: Solid, origin: tuple[Any, Any, Any], rays: Any) -> tuple[Floats, Floats]:
    """Return where rays enter and leave a solid, as multiples of the rays; enter > leave: missed.

    A box is three pairs of parallel planes, a cylinder one pair and a circle, a sphere a circle in
    three dimensions; the ray is inside where it is inside all of them.

    Args:
        solid: what to meet.
        origin: three floats or arrays (...), metres.
        rays: three arrays (...).
    """
    start = to_local(solid, *(o - np.float32(c) for o, c in zip(origin, solid.centre, strict=True)))
    ray = to_local(solid, *rays)
    if solid.kind == SPHERE:
        return _round(start, ray, solid.half[0])
    enter, leave = _slab(start[1], ray[1], solid.half[1])
    if solid.kind == CYLINDER:
        pairs = [_round(start[::2], ray[::2], solid.half[0])]
    else:
        pairs = [_slab(start[axis], ray[axis], solid.half[axis]) for axis in (0, 2)]
    for near, far in pairs:
        np.maximum(enter, near, out=enter)
        np.minimum(leave, far, out=leave)
    return enter, leave


def _slab(start: Any, ray: Floats, half: float) -> tuple[Floats, Floats]:
    """Return where rays enter and leave the space between the planes at -half and half."""
    inverse = np.reciprocal(ray + TINY)
    middle = inverse * -start
    np.abs(inverse, out=inverse)
    inverse *= np.float32(half)
    return middle - inverse, np.add(middle, inverse, out=middle)


def _round(start: Any, ray: Any, radius: float) -> tuple[Floats, Floats]:
    """Return where rays enter and leave a circle (two components) or a sphere (three)."""
    a = sum(r * r for r in ray) + TINY
    b = -sum(s * r for s, r in zip(start, ray, strict=True)) / a
    c = (sum(s * s for s in start) - np.float32(radius * radius)) / a
    reach = b * b - c
    missed = reach < 0
    np.sqrt(np.maximum(reach, 0), out=reach)
    enter, leave = b - reach, b + reach
    enter[missed], leave[missed] = np.inf, -np.inf
    return enter, leave
