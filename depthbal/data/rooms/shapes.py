"""A pinhole camera, and the solids that its rays can meet: boxes, upright cylinders, spheres.

Lengths are metres, angles radians; x points right, y up and z into the room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, sin
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Vector = tuple[float, float, float]
BOX, CYLINDER, SPHERE = 0, 1, 2
_TINY = np.float32(1e-20)  # keeps 1 / 0 and 0 * inf away where a ray is parallel to a plane
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: yaw turns it to the right, pitch down, roll about the optical axis.

    A pixel (row i, column j) looks along `forward + a right + b down` with
    `a = (j + 1/2 - width/2) / focal` and `b = (i + 1/2 - height/2) / focal`, the focal length in
    pixels. The coefficient of `forward` is 1, so a ray's parameter IS the depth along the optical
    axis (z-depth) that Kinect and NYU Depth V2 give; it is not the distance to the point.
    """

    height: int
    width: int
    focal: float
    position: Vector
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def axes(self) -> tuple[Vector, Vector, Vector]:
        """Return the unit vectors right, down and forward in the world."""
        sy, cy, sp, cp = sin(self.yaw), cos(self.yaw), sin(self.pitch), cos(self.pitch)
        level = np.array((cy, 0.0, -sy))
        fall = np.array((-sy * sp, -cp, -cy * sp))
        right = cos(self.roll) * level + sin(self.roll) * fall
        down = cos(self.roll) * fall - sin(self.roll) * level
        return tuple(right.tolist()), tuple(down.tolist()), (sy * cp, -sp, cy * cp)

    def rays(self) -> NDArray[np.float32]:
        """Return the direction of every pixel's ray, (3, height, width), unit length along z."""
        across = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)
        below = ((np.arange(self.height) + 0.5 - self.height / 2) / self.focal).astype(np.float32)
        rays = np.empty((3, self.height, self.width), np.float32)
        for axis, (right, down, forward) in enumerate(zip(*self.axes(), strict=True)):
            rows = np.float32(down) * below + np.float32(forward)
            rays[axis] = np.float32(right) * across + rows[:, None]
        return rays

    def depth_of(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the z-depth of world points (N, 3)."""
        offset = (points - np.array(self.position)) * np.array(self.axes()[2])
        depth: NDArray[np.float64] = np.sum(offset, axis=1)
        return depth

    def windows(self, hulls: NDArray[np.float64]) -> list[tuple[slice, slice] | None]:
        """Return, for hulls of world points (S, P, 3), rows and columns that surely contain each.

        None means that nothing of a hull can be seen; one that reaches behind the camera gets the
        whole image.
        """
        right, down, forward = (np.array(axis) for axis in self.axes())
        offset = hulls - np.array(self.position)
        z = np.sum(offset * forward, axis=2)
        ahead = np.maximum(z, 1e-3)
        x = np.sum(offset * right, axis=2) / ahead * self.focal + self.width / 2
        y = np.sum(offset * down, axis=2) / ahead * self.focal + self.height / 2
        # a margin of one pixel on every side is more than rounding can move an edge
        columns = np.clip((x.min(axis=1) - 1, x.max(axis=1) + 2), 0, self.width).astype(int)
        rows = np.clip((y.min(axis=1) - 1, y.max(axis=1) + 2), 0, self.height).astype(int)
        partly = z.min(axis=1) < 1e-3
        rows[:, partly], columns[:, partly] = [[0], [self.height]], [[0], [self.width]]
        unseen = (z.max(axis=1) < 1e-3) | (columns[0] >= columns[1]) | (rows[0] >= rows[1])
        return [
            None if hidden else (slice(top, bottom), slice(left, end))
            for hidden, top, bottom, left, end in zip(
                unseen.tolist(), *rows.tolist(), *columns.tolist(), strict=True
            )
        ]


class Solid(NamedTuple):
    """A convex solid, standing upright and turned by yaw about the vertical.

    `half` is half of its extent along its own axes (a radius counts as half), `material` an index
    into the scene's; `shadows` says whether it takes light away from others, as walls do not.
    """

    kind: int
    centre: Vector
    half: Vector
    material: int
    yaw: float = 0.0
    shadows: bool = True

    def placed(self, x: float, z: float, yaw: float) -> "Solid":
        """Return this part of a piece of furniture, turned and moved to (x, z) on the floor."""
        c, s = cos(yaw), sin(yaw)
        own_x, y, own_z = self.centre
        centre = (x + c * own_x + s * own_z, y, z + c * own_z - s * own_x)
        return self._replace(centre=centre, yaw=self.yaw + yaw)


def block(
    x: float, y: float, z: float, width: float, height: float, depth: float, material: int
) -> Solid:
    """Return a box whose underside's middle is at (x, y, z)."""
    return Solid(BOX, (x, y + height / 2, z), (width / 2, height / 2, depth / 2), material)


def pole(x: float, y: float, z: float, radius: float, height: float, material: int) -> Solid:
    """Return an upright cylinder whose underside's middle is at (x, y, z)."""
    return Solid(CYLINDER, (x, y + height / 2, z), (radius, height / 2, radius), material)


def table(solids: Sequence[Solid]) -> NDArray[np.float64]:
    """Return centre, half, cos(yaw) and sin(yaw) of every solid, shape (S, 8)."""
    return np.array([(*s.centre, *s.half, cos(s.yaw), sin(s.yaw)) for s in solids])


def corners(solids: Sequence[Solid]) -> NDArray[np.float64]:
    """Return the corners (S, 8, 3) of the solids' bounding boxes."""
    rows = table(solids)[:, None]
    x, y, z = np.moveaxis(_CORNERS * rows[..., 3:6], -1, 0)
    c, s = rows[..., 6], rows[..., 7]
    return np.stack((c * x + s * z, y, c * z - s * x), axis=-1) + rows[..., :3]


def span(solid: Solid, origin: Sequence[Any], rays: Any) -> tuple[Floats, Floats]:
    """Return where rays enter and leave a solid, as multiples of the rays; enter > leave: missed.

    A box is three pairs of parallel planes, a cylinder one pair and a circle, a sphere a circle in
    three dimensions; the ray is inside where it is inside all of them.

    Args:
        solid: what to meet.
        origin: three floats or arrays (...).
        rays: three arrays (...).
    """
    start = _to_local(solid, [o - np.float32(c) for o, c in zip(origin, solid.centre, strict=True)])
    ray = _to_local(solid, rays)
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


def _to_local(solid: Solid, direction: Sequence[Any]) -> Sequence[Any]:
    """Turn a world direction (three floats or arrays) into the solid's own axes."""
    if not solid.yaw:
        return direction
    x, y, z = direction
    c, s = np.float32(cos(solid.yaw)), np.float32(sin(solid.yaw))
    return c * x - s * z, y, s * x + c * z


def _slab(start: Any, ray: Floats, half: float) -> tuple[Floats, Floats]:
    """Return where rays enter and leave the space between the planes at -half and half."""
    inverse = np.reciprocal(ray + _TINY)
    middle = inverse * -start
    np.abs(inverse, out=inverse)
    inverse *= np.float32(half)
    return middle - inverse, np.add(middle, inverse, out=middle)


def _round(start: Any, ray: Any, radius: float) -> tuple[Floats, Floats]:
    """Return where rays enter and leave a circle (two components) or a sphere (three)."""
    a = sum(r * r for r in ray) + _TINY
    b = -sum(s * r for s, r in zip(start, ray, strict=True)) / a
    c = (sum(s * s for s in start) - np.float32(radius * radius)) / a
    reach = b * b - c
    missed = reach < 0
    np.sqrt(np.maximum(reach, 0), out=reach)
    enter, leave = b - reach, b + reach
    enter[missed], leave[missed] = np.inf, -np.inf
    return enter, leave
