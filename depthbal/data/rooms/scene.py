"""What a picture shows: a pinhole camera, upright solids with their materials, and lamps.

Lengths are metres, angles radians; x points right, y up and z into the room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import cos, sin
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Vector: TypeAlias = tuple[float, float, float]
BOX, CYLINDER, SPHERE = 0, 1, 2


class Material(NamedTuple):
    """A pattern by name (see `textures.PATTERNS`) in two linear colours; `glow` is light sent out.

    `glow` is a factor of the colour.
    """

    pattern: str
    colour: Vector
    accent: Vector = (0.0, 0.0, 0.0)
    glow: float = 0.0


class Light(NamedTuple):
    """A small lamp; what it gives to a surface falls off with the square of the distance."""

    position: Vector
    power: Vector


class Solid(NamedTuple):
    """A convex solid, standing upright and turned by yaw about the vertical.

    `half` is half of its extent along its own axes (a radius counts as half); `shadows` says
    whether it takes light away from others, as walls do not.
    """

    kind: int
    centre: Vector
    half: Vector
    material: Material
    yaw: float = 0.0
    shadows: bool = True


def block(
    x: float, y: float, z: float, width: float, height: float, depth: float, material: Material
) -> Solid:
    """Return a box whose underside's middle is at (x, y, z)."""
    return Solid(BOX, (x, y + height / 2, z), (width / 2, height / 2, depth / 2), material)


def pole(y: float, radius: float, height: float, material: Material) -> Solid:
    """Return an upright cylinder whose underside's middle is at (0, y, 0)."""
    return Solid(CYLINDER, (0, y + height / 2, 0), (radius, height / 2, radius), material)


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

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return world points (..., 3) in the camera's axes: right, down and forward (z-depth)."""
        offset = points - np.array(self.position)
        return np.stack([(offset * axis).sum(axis=-1) for axis in self._axes], axis=-1)

    @cached_property
    def rays(self) -> NDArray[np.float32]:
        """The direction of every pixel's ray, (3, height, width), of length 1 along `forward`."""
        across = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)
        below = ((np.arange(self.height) + 0.5 - self.height / 2) / self.focal).astype(np.float32)
        right, down, forward = self._axes.astype(np.float32)[:, :, None]
        rays: NDArray[np.float32] = right[..., None] * across + (down * below + forward)[..., None]
        return rays

    @cached_property
    def _axes(self) -> NDArray[np.float64]:
        sy, cy, sp, cp = sin(self.yaw), cos(self.yaw), sin(self.pitch), cos(self.pitch)
        level, fall = np.array((cy, 0.0, -sy)), np.array((-sy * sp, -cp, -cy * sp))
        c, s = cos(self.roll), sin(self.roll)
        return np.stack((c * level + s * fall, c * fall - s * level, (sy * cp, -sp, cy * cp)))


@dataclass(frozen=True)
class Scene:
    """A complete description of one picture; the camera must be outside all solids."""

    camera: Camera
    solids: Sequence[Solid]
    lights: Sequence[Light] = ()  # the first one also casts shadows
    ambient: float = 0.3  # light from everywhere
    brightness: float = 0.45  # typical grey value that the exposure aims at, 0 to 1
    noise: float = 0.01  # standard deviation of the sensor's at mid-grey, 0 to 1
