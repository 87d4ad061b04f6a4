"""A scene under construction: materials are made, solids are put in place, nothing overlaps."""

from dataclasses import dataclass, field
from math import cos, sin

import numpy as np

from depthbal.data.rooms.camera import Vector
from depthbal.data.rooms.scene import Light, Material
from depthbal.data.rooms.shapes import BOX, CYLINDER, SPHERE, Solid


def block(
    x: float, y: float, z: float, width: float, height: float, depth: float, material: int
) -> Solid:
    """Return a box whose underside's middle is at (x, y, z), all in metres."""
    return Solid(BOX, (x, y + height / 2, z), (width / 2, height / 2, depth / 2), material)


def pole(x: float, y: float, z: float, radius: float, height: float, material: int) -> Solid:
    """Return an upright cylinder whose underside's middle is at (x, y, z), all in metres."""
    return Solid(CYLINDER, (x, y + height / 2, z), (radius, height / 2, radius), material)


def ball(x: float, y: float, z: float, radius: float, material: int) -> Solid:
    """Return a sphere with its centre at (x, y, z), all in metres."""
    return Solid(SPHERE, (x, y, z), (radius, radius, radius), material)


def placed(solid: Solid, x: float, z: float, yaw: float) -> Solid:
    """Return a solid of a piece of furniture, turned by yaw and moved to (x, z) on the floor."""
    c, s = cos(yaw), sin(yaw)
    own_x, y, own_z = solid.centre
    centre = (x + c * own_x + s * own_z, y, z + c * own_z - s * own_x)
    return solid._replace(centre=centre, yaw=solid.yaw + yaw)


@dataclass
class Stage:
    """Collects a scene; `rng` decides everything that is left to chance.

    Args:
        rng: source of randomness.
        solids: what stands there so far.
        materials: what the solids are made of.
        lights: lamps so far.
        taken: circles (x, z, radius) on the floor where nothing else may stand.
    """

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

    def choose(self, *names: str) -> str:
        """Return one of the names, each as likely."""
        return names[int(self.rng.random() * len(names))]

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

    def add_light(self, position: Vector, power: Vector) -> None:
        """Add a lamp."""
        self.lights.append(Light(position, power))

    def free(self, x: float, z: float, radius: float) -> bool:
        """Return whether a circle on the floor touches nothing that was taken before."""
        return all((x - a) ** 2 + (z - b) ** 2 > (radius + r) ** 2 for a, b, r in self.taken)
