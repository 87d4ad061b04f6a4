"""A pinhole camera: where a pixel looks, and where a point is seen."""

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in a world whose x points right, y up and z into the room.

    A pixel (row i, column j) looks along `forward + a right + b down` with
    `a = (j + 1/2 - width/2) / focal` and `b = (i + 1/2 - height/2) / focal`. The coefficient of
    `forward` is 1, so a ray's parameter IS the depth along the optical axis (z-depth), the depth
    that Kinect and NYU Depth V2 give; it is not the distance to the point.

    Args:
        height: rows of the image.
        width: columns of the image.
        focal: focal length in pixels.
        position: where the camera stands, in metres.
        yaw: turn to the right about the vertical, in radians.
        pitch: turn downwards, in radians.
        roll: turn about the optical axis, in radians.

    Example:
        >>> camera = Camera(height=2, width=4, focal=2.0, position=(0.0, 1.5, 0.0))
        >>> camera.rays()[:, 1, 3].tolist()
        [0.75, -0.25, 1.0]
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
        forward = (sy * cp, -sp, cy * cp)
        level = np.array((cy, 0.0, -sy))
        fall = np.array((-sy * sp, -cp, -cy * sp))
        right = cos(self.roll) * level + sin(self.roll) * fall
        down = cos(self.roll) * fall - sin(self.roll) * level
        return tuple(right.tolist()), tuple(down.tolist()), forward

    def rays(self) -> NDArray[np.float32]:
        """Return the direction of every pixel's ray, (3, height, width), unit length along z."""
        right, down, forward = self.axes()
        across = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)
        below = ((np.arange(self.height) + 0.5 - self.height / 2) / self.focal).astype(np.float32)
        rays = np.empty((3, self.height, self.width), np.float32)
        for axis in range(3):
            rays[axis] = (
                np.float32(right[axis]) * across
                + (np.float32(down[axis]) * below + np.float32(forward[axis]))[:, None]
            )
        return rays

    def depth_of(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the z-depth in metres of world points (N, 3)."""
        forward = np.array(self.axes()[2])
        depth: NDArray[np.float64] = np.sum((points - np.array(self.position)) * forward, axis=1)
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
        behind, partly = z.max(axis=1) < 1e-3, z.min(axis=1) < 1e-3
        found: list[tuple[slice, slice] | None] = []
        for at in range(len(hulls)):
            (left, end), (top, bottom) = columns[:, at].tolist(), rows[:, at].tolist()
            if partly[at]:
                left, end, top, bottom = 0, self.width, 0, self.height
            unseen = behind[at] or left >= end or top >= bottom
            found.append(None if unseen else (slice(top, bottom), slice(left, end)))
        return found
