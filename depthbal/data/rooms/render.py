"""Take the picture: a scene becomes an image and its exact depth map."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthbal.data.rooms.shapes import (
    CYLINDER,
    SPHERE,
    Camera,
    Floats,
    Solid,
    corners,
    span,
    table,
)
from depthbal.data.rooms.stage import Light, Material, Scene
from depthbal.data.rooms.textures import PATTERNS

Ints = NDArray[np.intp]
MIN_DEPTH, MAX_DEPTH = 0.7, 10.0  # metres that the simulated sensor measures
_READ_NOISE = 0.3  # share of the noise that does not grow with the light


class Surface(NamedTuple):
    """What a set of N rays meets."""

    points: Floats  # where, in world metres, (3, N)
    normals: Floats  # unit vectors, (3, N)
    u: Floats  # position on the surface in metres, sideways, (N,)
    v: Floats  # and upwards, where the surface is upright
    material: Ints  # index of the material, (N,)


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
    image = _develop(_blur(radiance), scene, rng)
    return image, np.where((depth >= MIN_DEPTH) & (depth <= MAX_DEPTH), depth, np.float32(0))


def trace(
    camera: Camera, solids: tuple[Solid, ...], rays: Floats | None = None
) -> tuple[Floats, Ints]:
    """Return each pixel's z-depth in metres (infinite: nothing there) and the index of its solid.

    Every solid is tested only inside the window of the image that can contain it. The depth is
    exact for the ray through the pixel's centre, to float32 rounding. Shapes: (height, width).
    """
    rays = camera.rays() if rays is None else rays
    depth = np.full(rays.shape[1:], np.inf, np.float32)
    index = np.zeros(rays.shape[1:], np.intp)
    windows = camera.windows(corners(solids))
    for number, (solid, window) in enumerate(zip(solids, windows, strict=True)):
        if window is None:
            continue
        enter, leave = span(solid, camera.position, rays[:, window[0], window[1]])
        nearer = (enter < depth[window]) & (enter <= leave) & (enter > 0)
        np.copyto(depth[window], enter, where=nearer)
        index[window][nearer] = number
    return depth, index


def surface(solids: tuple[Solid, ...], index: Ints, points: Floats) -> Surface:
    """Return normals, positions on the surface and materials at world points (3, N).

    A box's own axes give (u, v) from its lowest corner, a cylinder's the way around it and its
    height, so that patterns keep their metric size on every face.
    """
    own = table(solids).astype(np.float32).T[:, index]
    local = points - own[:3]
    half, c, s = own[3:6], own[6], own[7]
    local[0], local[2] = c * local[0] - s * local[2], s * local[0] + c * local[2]
    closeness = np.abs(local) / half
    face = closeness.argmax(axis=0)
    across = np.arange(3)[:, None] == face
    normal = np.where(across, np.sign(local), np.float32(0)).astype(np.float32)
    corner = local + half
    u = np.where(face == 0, corner[2], corner[0])
    v = np.where(face == 1, corner[2], corner[1])
    kinds = np.array([solid.kind for solid in solids])[index]
    for kind in (CYLINDER, SPHERE):
        chosen = np.flatnonzero(kinds == kind)
        if chosen.size:
            _bend(kind, chosen, local, half, normal, u)
    normal[0], normal[2] = c * normal[0] + s * normal[2], c * normal[2] - s * normal[0]
    material = np.array([solid.material for solid in solids])[index]
    return Surface(points, normal, u, v, material)


def _bend(kind: int, at: Ints, local: Floats, half: Floats, normal: Floats, u: Floats) -> None:
    """Overwrite normals and u where the surface is that of a cylinder's side or a sphere."""
    x, y, z = local[:, at]
    if kind == CYLINDER:
        radius, rise = half[0, at], half[1, at]
        side = np.hypot(x, z) / radius >= np.abs(y) / rise
        at, x, y, z = at[side], x[side], np.zeros_like(y[side]), z[side]
    length = np.sqrt(x * x + y * y + z * z)
    normal[:, at] = np.stack((x, y, z)) / length
    u[at] = half[0, at] * np.arctan2(x, z)


def _radiance(scene: Scene, rays: Floats, depth: Floats, found: Surface) -> Floats:
    """Return the linear light (3, N) that surface points send to the camera."""
    flat = rays.reshape(3, -1)
    slant = np.abs((flat * found.normals).sum(axis=0)) / np.sqrt((flat * flat).sum(axis=0))
    # the footprint of a pixel is 1 / slant times longer than wide: its geometric mean
    footprint = depth.ravel() / np.float32(scene.camera.focal) / np.sqrt(np.maximum(slant, 0.02))
    colour, glow = _reflectance(scene.materials, found, footprint)
    # light from everywhere is mostly what the ceiling sends back
    light = np.repeat((scene.ambient * (1 + 0.3 * found.normals[1]))[None], 3, axis=0)
    for number, lamp in enumerate(scene.lights):
        given = illumination(found, lamp)
        if number == 0:
            points = found.points.reshape(3, *depth.shape)
            given *= _soft_shadow(scene.solids, points, lamp).ravel()
        light += given * np.array(lamp.power, np.float32)[:, None]
    radiance: Floats = colour * (light + glow)
    return radiance


def _reflectance(
    materials: tuple[Material, ...], found: Surface, footprint: Floats
) -> tuple[Floats, Floats]:
    """Return the colour (3, N) and the glow (N,) of points; a pixel's footprint in metres (N,)."""
    share, tone = np.zeros_like(found.u), np.ones_like(found.u)
    numbers = np.array([list(PATTERNS).index(material.pattern) for material in materials])
    pattern = numbers[found.material]
    for number, draw in enumerate(PATTERNS.values()):
        at = np.flatnonzero(pattern == number)
        if at.size:
            share[at], tone[at] = draw(found.u[at], found.v[at], footprint[at])
    looks = np.array([(*m.colour, *m.accent, m.glow) for m in materials], np.float32).T
    look = looks[:, found.material]
    colour: Floats = (look[:3] + (look[3:6] - look[:3]) * share) * tone
    return colour, look[6]


def illumination(found: Surface, light: Light) -> Floats:
    """Return what a lamp gives to surface points, `max(cos, 0) / distance^2`, shape (N,)."""
    way = np.array(light.position, np.float32)[:, None] - found.points
    square = (way * way).sum(axis=0)
    facing = (way * found.normals).sum(axis=0)
    # 0.1 m^2 is the size of a real lamp: next to it the law of points would be infinite
    given: Floats = np.maximum(facing, 0) / (np.sqrt(square) * (square + np.float32(0.1)))
    return given


def lit(solids: tuple[Solid, ...], points: Floats, light: Light) -> NDArray[np.bool_]:
    """Return whether the way from points (3, ...) to a lamp is free of solids that cast shadows."""
    way = [np.float32(p) - points[i] for i, p in enumerate(light.position)]
    free = np.ones(points.shape[1:], np.bool_)
    for solid in solids:
        if solid.shadows:
            enter, leave = span(solid, list(points), way)
            # a point's own solid is entered at 0: 2 % of the way is past that, and any rounding
            free &= (np.maximum(enter, 0.0) > np.minimum(leave, 1.0)) | (leave < 0.02)
    return free


def _soft_shadow(solids: tuple[Solid, ...], points: Floats, light: Light) -> Floats:
    """Return the light that reaches an image of points (3, H, W): 1 lit, 0.15 umbra.

    Every other row and column is tested and the result smoothed, because a real lamp has a size.
    """
    free = lit(solids, points[:, ::2, ::2], light).astype(np.float32)
    full = free.repeat(2, axis=0).repeat(2, axis=1)[: points.shape[1], : points.shape[2]]
    return np.float32(0.15) + np.float32(0.85) * _blur(_blur(full))


def _blur(image: Floats) -> Floats:
    """Return the image (..., H, W) smoothed by (1, 2, 1) / 4 along both axes."""
    half, quarter = np.float32(0.5), np.float32(0.25)
    for axis in (-1, -2):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (1, 1)
        wide = np.moveaxis(np.pad(image, pad, mode="edge"), axis, -1)
        mixed = wide[..., 1:-1] * half + (wide[..., 2:] + wide[..., :-2]) * quarter
        image = np.moveaxis(mixed, -1, axis)
    return image


def _develop(radiance: Floats, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
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
    value += noise * (np.float32(scene.noise) * (_READ_NOISE + 2 * (1 - _READ_NOISE) * value))
    pixels = np.clip(value * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
