"""Take the picture: a scene becomes an image and its exact depth map."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from depthbal.data.rooms.scene import Scene
from depthbal.data.rooms.shade import (
    blur,
    develop,
    illumination,
    reflectance,
    soft_shadow,
)
from depthbal.data.rooms.trace import Surface, surface, trace

Floats: TypeAlias = NDArray[np.floating[Any]]
MIN_DEPTH, MAX_DEPTH = 0.7, 10.0
"""Depths in metres that the simulated sensor measures; anything else is 0, no depth."""


def render(scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Floats]:
    """Return the photograph (H, W, 3) uint8 RGB and the z-depth (H, W) float32 in metres.

    Depth is measured along the optical axis at the pixels' centres; 0 where it lies outside 0.7 to
    10 m. The image is a little blurred, like a lens's; the depth is not.

    Args:
        scene: what to photograph.
        rng: draws the sensor's noise.
    """
    rays = scene.camera.rays()
    depth, index = trace(scene.camera, scene.solids, rays)
    seen = np.where(np.isfinite(depth), depth, np.float32(100))
    origin = np.array(scene.camera.position, np.float32)[:, None, None]
    points = origin + rays * seen
    found = surface(scene.solids, index.ravel(), points.reshape(3, -1))
    radiance = _radiance(scene, rays, seen, found).reshape(3, *depth.shape)
    image = develop(blur(radiance), scene, rng)
    return image, np.where((depth >= MIN_DEPTH) & (depth <= MAX_DEPTH), depth, np.float32(0))


def _radiance(scene: Scene, rays: Floats, depth: Floats, found: Surface) -> Floats:
    """Return the linear light (3, N) that surface points send to the camera."""
    flat = rays.reshape(3, -1)
    slant = np.abs((flat * found.normals).sum(axis=0)) / np.sqrt((flat * flat).sum(axis=0))
    # the footprint of a pixel is 1 / slant times longer than wide: its geometric mean
    footprint = depth.ravel() / np.float32(scene.camera.focal) / np.sqrt(np.maximum(slant, 0.02))
    colour, glow = reflectance(scene.materials, found, footprint)
    # light from everywhere is mostly what the ceiling sends back
    light = np.repeat((scene.ambient * (1 + 0.3 * found.normals[1]))[None], 3, axis=0)
    for number, lamp in enumerate(scene.lights):
        given = illumination(found, lamp)
        if number == 0:
            points = found.points.reshape(3, *depth.shape)
            given *= soft_shadow(scene.solids, points, lamp).ravel()
        light += given * np.array(lamp.power, np.float32)[:, None]
    radiance: Floats = colour * (light + glow)
    return radiance
