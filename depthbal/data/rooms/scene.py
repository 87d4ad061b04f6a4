"""What a picture is taken of: solids, their materials, lights and a camera."""

from dataclasses import dataclass
from typing import NamedTuple

from depthbal.data.rooms.camera import Camera, Vector
from depthbal.data.rooms.shapes import Solid


class Material(NamedTuple):
    """How a surface looks.

    Args:
        pattern: a name in `depthbal.data.rooms.textures.PATTERNS`.
        colour: linear reflectance of red, green and blue, 0 to 1.
        accent: the second colour of the pattern.
        glow: light that the surface sends out itself, as a factor of its colour.
    """

    pattern: str
    colour: Vector
    accent: Vector = (0.0, 0.0, 0.0)
    glow: float = 0.0


class Light(NamedTuple):
    """A small lamp; what it gives to a surface falls off with the square of the distance.

    Args:
        position: metres.
        power: red, green and blue.
    """

    position: Vector
    power: Vector


@dataclass(frozen=True)
class Scene:
    """A complete description of one picture.

    Args:
        camera: where from and how.
        solids: what is there; the camera must be outside all of them.
        materials: looked up by `Solid.material`.
        lights: the first one also casts shadows.
        ambient: light from everywhere.
        brightness: typical grey value that the camera's exposure aims at, 0 to 1.
        noise: standard deviation of the sensor's noise at mid-grey, 0 to 1.
    """

    camera: Camera
    solids: tuple[Solid, ...]
    materials: tuple[Material, ...]
    lights: tuple[Light, ...]
    ambient: float = 0.3
    brightness: float = 0.45
    noise: float = 0.01
