"""From surfaces to a photograph: patterns, light, shadow, exposure and sensor noise."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from depthbal.data.rooms.scene import Light, Material, Scene
from depthbal.data.rooms.shapes import Solid, span
from depthbal.data.rooms.textures import PATTERNS
from depthbal.data.rooms.trace import Surface

Floats: TypeAlias = NDArray[np.floating[Any]]
READ_NOISE = 0.3  # share of the noise that does not grow with the light


def reflectance(
    materials: tuple[Material, ...], surface: Surface, footprint: Floats
) -> tuple[Floats, Floats]:
    """Return the colour (3, N) and the glow (N,) of surface points.

    Args:
        materials: looked up by `surface.material`.
        surface: N points.
        footprint: width of a pixel on each surface, metres, (N,).
    """
    share = np.zeros_like(surface.u)
    tone = np.ones_like(surface.u)
    names = np.array([list(PATTERNS).index(material.pattern) for material in materials])
    pattern = names[surface.material]
    for number in np.flatnonzero(np.bincount(pattern)).tolist():
        at = np.flatnonzero(pattern == number)
        draw = list(PATTERNS.values())[number]
        share[at], tone[at] = draw(surface.u[at], surface.v[at], footprint[at])
    looks = np.array([(*m.colour, *m.accent, m.glow) for m in materials], np.float32).T
    look = looks[:, surface.material]
    colour: Floats = (look[:3] + (look[3:6] - look[:3]) * share) * tone
    return colour, look[6]


def illumination(surface: Surface, light: Light) -> Floats:
    """Return what a lamp gives to surface points, `max(cos, 0) / distance^2`, shape (N,)."""
    way = np.array(light.position, np.float32)[:, None] - surface.points
    square = (way * way).sum(axis=0)
    facing = (way * surface.normals).sum(axis=0)
    # 0.1 m^2 is the size of a real lamp: next to it the law of points would be infinite
    given: Floats = np.maximum(facing, 0) / (np.sqrt(square) * (square + np.float32(0.1)))
    return given


def lit(solids: tuple[Solid, ...], points: Floats, light: Light) -> NDArray[np.bool_]:
    """Return whether the way from points (3, ...) to a lamp is free of solids that cast shadows."""
    way = tuple(np.float32(p) - points[i] for i, p in enumerate(light.position))
    free = np.ones(points.shape[1:], np.bool_)
    for solid in solids:
        if solid.shadows:
            enter, leave = span(solid, (points[0], points[1], points[2]), way)
            # a point's own solid is entered at 0: 2 % of the way is past that, and any rounding
            free &= (np.maximum(enter, 0.0) > np.minimum(leave, 1.0)) | (leave < 0.02)
    return free


def soft_shadow(solids: tuple[Solid, ...], points: Floats, light: Light) -> Floats:
    """Return the light that reaches an image of points (3, H, W): 0 dark, 1 lit, 0.25 umbra.

    Every other row and column is tested and the result smoothed, because a real lamp has a size.
    """
    free = lit(solids, points[:, ::2, ::2], light).astype(np.float32)
    full = free.repeat(2, axis=0).repeat(2, axis=1)[: points.shape[1], : points.shape[2]]
    return np.float32(0.15) + np.float32(0.85) * blur(blur(full))


def blur(image: Floats) -> Floats:
    """Return the image (..., H, W) smoothed by (1, 2, 1) / 4 along both axes."""
    for axis in (-1, -2):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (1, 1)
        wide = np.moveaxis(np.pad(image, pad, mode="edge"), axis, -1)
        mixed = wide[..., 1:-1] * np.float32(0.5) + (wide[..., 2:] + wide[..., :-2]) * np.float32(
            0.25
        )
        image = np.moveaxis(mixed, -1, axis)
    return image


def develop(radiance: Floats, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the photograph (H, W, 3) of linear radiance (3, H, W).

    Automatic exposure, a soft shoulder `x / (1 + x)`, a display curve of exponent 1/2 and sensor
    noise whose variance grows with the light. (Square root and division round alike on every
    machine, which powers and exponentials do not.)
    """
    # sqrt(x / (1 + x)) = brightness at the typical radiance
    aim = scene.brightness**2 / (1 - scene.brightness**2)
    # the mean of roots, squared, heeds bright windows less than the mean does
    level = float(np.sqrt(radiance).mean()) ** 2
    exposed = radiance * np.float32(aim / max(level, 1e-6))
    value = exposed / (1 + exposed)
    np.sqrt(value, out=value)
    noise = rng.standard_normal(value.shape, np.float32)
    value += noise * (np.float32(scene.noise) * (READ_NOISE + 2 * (1 - READ_NOISE) * value))
    pixels = np.clip(value * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
