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


class Pattern(NamedTuple):
    """Rows of cells of known size in metres, which tell a network how far away a surface is."""

    width: float = 1.0
    height: float = 1.0
    joint: float = 0.0  # width of the lines between cells, in the accent colour
    tone: float = 0.0  # how much the cells differ in brightness
    mix: float = 0.0  # largest share of the accent colour in a cell, drawn for each
    check: float = 0.0  # its share in every other cell
    shift: float = 0.0  # of a row against the one below, in cells


class Material(NamedTuple):
    """A pattern in two linear colours, and the light it sends out, as a factor of its colour."""

    pattern: Pattern
    colour: Vector
    accent: Vector = (0.0, 0.0, 0.0)
    glow: float = 0.0


class Solid(NamedTuple):
    """A convex solid, standing upright and turned by yaw about the vertical."""

    kind: int
    centre: Vector
    half: Vector  # of its extent along its own axes; a radius counts as half
    material: Material
    yaw: float = 0.0
    shadows: bool = True  # whether it takes light away from others, as walls do not


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: yaw turns it to the right, pitch down, roll about the optical axis.

    A pixel (row i, column j) looks along `forward + a right + b down`,
    `a = (j + 1/2 - width/2) / focal` and `b = (i + 1/2 - height/2) / focal`: a ray's parameter IS
    the depth along the optical axis (z-depth), not the distance to the point.
    """

    height: int
    width: int
    focal: float  # pixels
    position: Vector
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return world points (..., 3) in the camera's axes: right, down and forward (z-depth)."""
        view: NDArray[np.float64] = (points - np.array(self.position)) @ self._axes.T
        return view

    @cached_property
    def rays(self) -> NDArray[np.float32]:
        """The direction of every pixel's ray, (3, height, width), of length 1 along `forward`."""
        across, below = (
            ((np.arange(count) + 0.5 - count / 2) / self.focal).astype(np.float32)
            for count in (self.width, self.height)
        )
        right, down, forward = self._axes.astype(np.float32)[:, :, None]
        rays: NDArray[np.float32] = right[..., None] * across + (down * below + forward)[..., None]
        return rays

    @cached_property
    def _axes(self) -> NDArray[np.float64]:
        sy, cy, sp, cp = sin(self.yaw), cos(self.yaw), sin(self.pitch), cos(self.pitch)
        level, fall = np.array((cy, 0.0, -sy)), np.array((-sy * sp, -cp, -cy * sp))
        c, s = cos(self.roll), sin(self.roll)
        return np.stack((c * level + s * fall, c * fall - s * level, (sy * cp, -sp, cy * cp)))


class Air(NamedTuple):
    """What is outdoors: the sun, and haze whose colour is the sky's at the horizon."""

    sun: Vector  # unit vector towards it
    power: Vector  # light it gives to a surface that faces it
    haze: float  # extinction per metre; a surface's light falls to exp(-haze depth)
    horizon: Vector
    zenith: Vector
    clouds: Vector  # share of the sky that is covered, and two phases of their pattern


@dataclass(frozen=True)
class Scene:
    """A complete description of one picture; the camera must be outside all solids."""

    camera: Camera
    solids: Sequence[Solid]
    lights: Sequence[tuple[Vector, Vector]] = ()  # lamps' places and powers; the first has shadows
    ambient: float = 0.3  # light from everywhere
    brightness: float = 0.45  # typical grey value that the exposure aims at, 0 to 1
    noise: float = 0.01  # standard deviation of the sensor's at mid-grey, 0 to 1
    depth_range: tuple[float, float] = (0.7, 10.0)  # metres that the simulated sensor measures
    air: Air | None = None  # outdoors; what lies beyond the range is then infinitely deep
