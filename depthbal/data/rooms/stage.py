"""A scene, and a scene under construction: nothing overlaps, chance decides everything."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from depthbal.data.rooms.shapes import Camera, Solid, Vector, block


class Material(NamedTuple):
    """How a surface looks: a pattern by name (see `textures.PATTERNS`) in two linear colours.

    `glow` is light that the surface sends out itself, as a factor of its colour.
    """

    pattern: str
    colour: Vector
    accent: Vector = (0.0, 0.0, 0.0)
    glow: float = 0.0


class Light(NamedTuple):
    """A small lamp; what it gives to a surface falls off with the square of the distance."""

    position: Vector
    power: Vector


@dataclass(frozen=True)
class Scene:
    """A complete description of one picture; the camera must be outside all solids."""

    camera: Camera
    solids: tuple[Solid, ...]
    materials: tuple[Material, ...]
    lights: tuple[Light, ...]  # the first one also casts shadows
    ambient: float = 0.3  # light from everywhere
    brightness: float = 0.45  # typical grey value that the exposure aims at, 0 to 1
    noise: float = 0.01  # standard deviation of the sensor's at mid-grey, 0 to 1


@dataclass
class Stage:
    """Collects a scene; `taken` are circles (x, z, radius) on the floor where nothing may stand."""

    rng: np.random.Generator
    solids: list[Solid] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def between(self, low: float, high: float) -> float:
        """Return a number drawn uniformly from [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, share: float) -> bool:
        """Return True in the given share of the cases."""
        return float(self.rng.random()) < share

    def choose(self, names: str) -> str:
        """Return one of the names in a text, each as likely."""
        among = names.split()
        return among[int(self.rng.random() * len(among))]

    def material(
        self, pattern: str, colour: Vector, accent: Vector = (0.0, 0.0, 0.0), glow: float = 0.0
    ) -> int:
        """Add a material and return its index."""
        self.materials.append(Material(pattern, colour, accent, glow))
        return len(self.materials) - 1

    def shade(self, low: float, high: float, colourful: float = 0.25) -> Vector:
        """Return a colour with a brightness in [low, high) and a random tint."""
        level = self.between(low, high)
        r, g, b = (max(level * (1 + colourful * self.between(-1, 1)), 0.01) for _ in range(3))
        return r, g, b

    def wood(self) -> Vector:
        """Return the colour of some wood, light or dark."""
        level = self.between(0.08, 0.5)
        return level, level * self.between(0.55, 0.8), level * self.between(0.25, 0.5)

    def wall(
        self, x: float, y: float, z: float, width: float, height: float, depth: float, look: int
    ) -> None:
        """Add a part of the building, a `block` that casts no shadow."""
        self.solids.append(block(x, y, z, width, height, depth, look)._replace(shadows=False))
