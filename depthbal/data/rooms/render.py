"""Take the picture: a scene becomes an image and its exact depth map."""

from collections.abc import Sequence
from functools import partial
from math import cos, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthbal.data.rooms.scene import (
    BOX,
    CYLINDER,
    SPHERE,
    Air,
    Camera,
    Floats,
    Scene,
    Solid,
    Vector,
)

Ints = NDArray[np.intp]
_READ_NOISE = 0.3  # share of the noise that does not grow with the light
# smooths an image (H, W) by (1, 2, 1) / 4 along both axes
_blur = partial(cv2.GaussianBlur, ksize=(3, 3), sigmaX=0, borderType=cv2.BORDER_REPLICATE)
_SUN_WAY = 40.0  # metres towards the sun within which things cast shadows
_TINY = np.float32(1e-20)  # keeps 1 / 0 and 0 * inf away where a ray is parallel to a plane


def render(scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Floats]:
    """Return the photograph (H, W, 3) uint8 RGB and the z-depth (H, W) float32 in metres.

    Depth is 0 where it lies outside the scene's range, but infinite beyond it outdoors. The image
    is a little blurred, like a lens's, and has noise drawn with `rng`; the depth has neither.
    """
    depth, index = trace(scene.camera, scene.solids)
    image = _develop(_radiance(scene, depth, index), scene, rng)
    low, high = scene.depth_range
    depth[depth > high] = np.inf if scene.air else 0
    return image, np.where(depth >= low, depth, np.float32(0))


def trace(camera: Camera, solids: Sequence[Solid]) -> tuple[Floats, Ints]:
    """Return the z-depth (H, W) of pixel centres in metres (infinite: nothing) and whose it is."""
    depth = np.full((camera.height, camera.width), np.inf, np.float32)
    index = np.zeros(depth.shape, np.intp)
    windows = _windows(camera, solids).tolist()
    for number, (solid, (left, top, right, bottom)) in enumerate(zip(solids, windows, strict=True)):
        if left < right and top < bottom:
            at = slice(top, bottom), slice(left, right)
            enter, leave = _span(solid, camera.position, camera.rays[:, *at])
            nearer = (enter < depth[at]) & (enter <= leave) & (enter > 0)
            np.copyto(depth[at], enter, where=nearer)
            index[at][nearer] = number
    return depth, index


def _windows(camera: Camera, solids: Sequence[Solid]) -> Ints:
    """Return left, top, right and bottom of a window that surely contains each solid, (S, 4)."""
    rows = _table(solids)[:, None]
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    x, y, z = np.moveaxis(signs * rows[..., 3:6], -1, 0)
    c, s = rows[..., 6], rows[..., 7]
    view = camera.project(np.stack((c * x + s * z, y, c * z - s * x), axis=-1) + rows[..., :3])
    z, size = view[..., 2], np.array((camera.width, camera.height))
    pixels = view[..., :2] / np.maximum(z, 1e-3)[..., None] * camera.focal + size / 2
    # a margin of one pixel on every side is more than rounding can move an edge
    low, high = np.clip((pixels.min(axis=1) - 1, pixels.max(axis=1) + 2), 0, size).astype(int)
    partly_behind, behind = z.min(axis=1) < 1e-3, z.max(axis=1) < 1e-3
    low[partly_behind], high[partly_behind], high[behind] = 0, size, 0
    return np.concatenate((low, high), axis=1)


def _table(solids: Sequence[Solid]) -> NDArray[np.float64]:
    """Return centre, half, cos(yaw), sin(yaw) and kind of every solid, shape (S, 9)."""
    return np.array([(*s.centre, *s.half, cos(s.yaw), sin(s.yaw), s.kind) for s in solids])


def _span(solid: Solid, origin: Sequence[Any], rays: Any) -> tuple[Floats, Floats]:
    """Return where rays enter and leave a solid, in multiples of them; enter > leave: missed."""
    start: Any = [o - np.float32(c) for o, c in zip(origin, solid.centre, strict=True)]
    ray = rays
    if solid.yaw:
        c, s = np.float32(cos(solid.yaw)), np.float32(sin(solid.yaw))
        start, ray = ((c * x - s * z, y, s * x + c * z) for x, y, z in (start, rays))
    if solid.kind == SPHERE:
        return _round(start, ray, solid.half[0])
    enter, leave = _slab(start[1], ray[1], solid.half[1])
    if solid.kind == CYLINDER:
        pairs = [_round(start[::2], ray[::2], solid.half[0])]
    else:
        pairs = [_slab(start[axis], ray[axis], solid.half[axis]) for axis in (0, 2)]
    for near, far in pairs:  # a ray is inside where it is inside all of them
        np.maximum(enter, near, out=enter)
        np.minimum(leave, far, out=leave)
    return enter, leave


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
    square = b * b - c
    reach = np.where(square < 0, -np.inf, np.sqrt(np.abs(square)))
    return b - reach, b + reach


def surface(solids: Sequence[Solid], index: Ints, points: Floats) -> tuple[Floats, Floats, Floats]:
    """Return unit normals (3, N) and metric positions u, v (N,) on surfaces at points (3, N)."""
    own = _table(solids).astype(np.float32).T[:, index]
    half, c, s, kind = own[3:6], own[6], own[7], own[8]
    x, y, z = points - own[:3]
    local = np.stack((c * x - s * z, y, s * x + c * z))
    closeness = np.abs(local) / half
    curved = np.flatnonzero(kind != BOX)
    x, y, z = local[:, curved]
    no_cap = np.hypot(x, z) / half[0, curved] >= closeness[1, curved]
    curved = curved[no_cap | (kind[curved] == SPHERE)]
    closeness[1, curved] = 0
    top = closeness[1] > np.maximum(closeness[0], closeness[2])
    side = (closeness[0] >= closeness[2]) & ~top
    normal = np.copysign(np.stack((side, top, ~(side | top))).astype(np.float32), local)
    corner = local + half
    u, v = np.where(side, corner[2], corner[0]), np.where(top, corner[2], corner[1])
    x, y, z = local[:, curved]
    y *= kind[curved] == SPHERE
    normal[:, curved] = np.stack((x, y, z)) / np.sqrt(x * x + y * y + z * z)
    u[curved] = half[0, curved] * np.arctan2(x, z)
    normal[0], normal[2] = c * normal[0] + s * normal[2], c * normal[2] - s * normal[0]
    return normal, u, v


def texture(u: Floats, v: Floats, footprint: Floats, pattern: Any) -> tuple[Floats, Floats]:
    """Return the accent colour's share and a brightness factor of a `Pattern` at (u, v).

    Both are averaged over a pixel's footprint, so that far patterns fade instead of flickering.
    """
    width, height, joint, tone, mix, check, shift = pattern
    row = np.floor(v / height)
    u = u + shift * row * width
    chance = _scatter(np.floor(u / width), row)
    one, wave = _lines(u, width, joint, footprint)
    other, across = _lines(v, height, joint, footprint)
    fade = np.clip(2 - 2 * footprint / np.minimum(width, height), 0, 1)
    share = one + other - one * other + mix * (0.5 + (chance - 0.5) * fade)
    bright = chance * 61 - np.floor(chance * 61) - 0.5
    return share + check * (1 - wave * across) / 2, 1 + tone * bright * fade


def _lines(x: Floats, period: Any, joint: Any, footprint: Floats) -> tuple[Floats, Floats]:
    """Return, over a footprint at x, the share of joints and the mean of a wave of 1 and -1."""
    nearest, fade = np.round(x / period), np.clip(2 - 2 * footprint / period, 0, 1)
    away = x - nearest * period
    share = (joint + footprint - 2 * np.abs(away)) / (2 * footprint)
    share = np.clip(share, 0, np.minimum(1, joint / footprint)) - joint / period
    wave = np.clip(2 * away / footprint, -1, 1) * (1 + 4 * np.floor(nearest / 2) - 2 * nearest)
    return joint / period + share * fade, wave * fade


def _scatter(i: Floats, j: Floats) -> Floats:
    """Return a pseudo-random number in [0, 1) for every pair of whole numbers."""
    mixed = i.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    mixed ^= j.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(13)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _radiance(scene: Scene, depth: Floats, index: Ints) -> Floats:
    """Return the linear light (3, H, W) that comes to the camera, through its lens."""
    camera, solids, index = scene.camera, scene.solids, index.ravel()
    rays = camera.rays.reshape(3, -1)
    seen = np.where(np.isfinite(depth), depth, np.float32(100)).ravel()
    points = np.array(camera.position, np.float32)[:, None] + rays * seen
    normals, u, v = surface(solids, index, points)
    # light from everywhere is mostly what the ceiling sends back
    light = np.repeat((scene.ambient * (1 + 0.3 * normals[1]))[None], 3, axis=0)
    for number, (lamp, power) in enumerate(scene.lights):
        given = illumination(points, normals, lamp)
        if number == 0:
            given *= _soft_shadow(solids, points.reshape(3, *depth.shape), lamp).ravel()
        light += given * np.array(power, np.float32)[:, None]
    if scene.air:
        sun = np.array(scene.air.sun, np.float32)[:, None]
        given = np.maximum((sun * normals).sum(axis=0), 0)
        lamps = (points + np.float32(_SUN_WAY) * sun).reshape(3, *depth.shape)
        given *= _soft_shadow(solids, points.reshape(3, *depth.shape), lamps).ravel()
        light += given * np.array(scene.air.power, np.float32)[:, None]
    slant = np.abs((rays * normals).sum(axis=0)) / np.sqrt((rays * rays).sum(axis=0))
    # the footprint of a pixel is 1 / slant times longer than wide: its geometric mean
    footprint = seen / np.float32(camera.focal) / np.sqrt(np.maximum(slant, 0.02))
    materials = [(*m.colour, *m.accent, m.glow, *m.pattern) for m in (s.material for s in solids)]
    look = [row[index] for row in np.array(materials, np.float32).T]
    share, tone = texture(u, v, footprint, look[7:])
    channels = zip(look[:3], look[3:6], light + look[6], strict=True)
    radiance = [(one + (other - one) * share) * tone * given for one, other, given in channels]
    if scene.air:
        radiance = through_air(scene.air, radiance, rays, depth.ravel())
    return np.stack([_blur(channel.reshape(depth.shape)) for channel in radiance])


def through_air(air: Air, radiance: Any, rays: Floats, depth: Floats) -> list[Floats]:
    """Return light (3, N) as it comes through the air: I exp(-haze d) + horizon (1 - exp(..)).

    Where there is nothing (infinite depth) it is the sky's, from the horizon's colour to that of
    the zenith, under clouds that look smaller towards the horizon. (Koschmieder's law, d along the
    optical axis.)
    """
    height = np.maximum(rays[1], 0) / np.sqrt((rays * rays).sum(axis=0))
    x, z = rays[::2] / (rays[1] + np.float32(0.1))
    cover, one, other = air.clouds
    waves = np.sin(3 * x + one + np.sin(2 * z)) + np.sin(4 * z + other + np.sin(3 * x + 2 * one))
    cloud = np.clip(waves / 2 + 2 * cover - 1, 0, 1) * np.clip(8 * height, 0, 1)
    rise, through = np.sqrt(height), np.exp(-np.float32(air.haze) * depth)
    seen = []
    for light, horizon, zenith in zip(radiance, air.horizon, air.zenith, strict=True):
        sky = horizon + (zenith - horizon) * rise
        behind = np.where(np.isfinite(depth), horizon, sky + (1.2 * horizon - sky) * cloud)
        seen.append((light * through + behind * (1 - through)).astype(np.float32))
    return seen


def illumination(points: Floats, normals: Floats, lamp: Vector) -> Floats:
    """Return what a lamp gives to surface points, `max(cos, 0) / distance^2`, shape (N,)."""
    way = np.array(lamp, np.float32)[:, None] - points
    square = (way * way).sum(axis=0)
    facing = (way * normals).sum(axis=0)
    # 0.1 m^2 is the size of a real lamp: next to it the law of points would be infinite
    given: Floats = np.maximum(facing, 0) / (np.sqrt(square) * (square + np.float32(0.1)))
    return given


def lit(solids: Sequence[Solid], points: Floats, lamp: Vector | Floats) -> NDArray[np.bool_]:
    """Return whether the way from points (3, ...) to a lamp is free of solids that cast shadows.

    The lamp is one place, or one per point (3, ...).
    """
    way = [np.float32(p) - points[i] for i, p in enumerate(lamp)]
    free = np.ones(points.shape[1:], np.bool_)
    for solid in solids:
        if solid.shadows:
            enter, leave = _span(solid, list(points), way)
            # a point's own solid is entered at 0: 2 % of the way is past that, and any rounding
            free &= (np.maximum(enter, 0.0) > np.minimum(leave, 1.0)) | (leave < 0.02)
    return free


def _soft_shadow(solids: Sequence[Solid], points: Floats, lamp: Vector | Floats) -> Floats:
    """Return the light that reaches an image of points (3, H, W): 1 lit, 0.15 umbra."""
    # every other row and column is tested and the result smoothed: a real lamp has a size
    lamp = lamp[:, ::2, ::2] if isinstance(lamp, np.ndarray) else lamp
    free = lit(solids, points[:, ::2, ::2], lamp).astype(np.float32)
    full = cv2.resize(free, points.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
    light: Floats = np.float32(0.15) + np.float32(0.85) * _blur(_blur(full))
    return light


def _develop(radiance: Floats, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the photograph (H, W, 3) of linear radiance (3, H, W): exposure, curve and noise."""
    # the curve is sqrt(x / (1 + x)): both round alike on every machine, as powers do not
    aim = scene.brightness**2 / (1 - scene.brightness**2)
    # the mean of roots, squared, heeds bright windows less than the mean does
    level = float(np.sqrt(radiance).mean()) ** 2
    exposed = radiance * np.float32(aim / max(level, 1e-6))
    value = np.sqrt(exposed / (1 + exposed))
    noise = rng.standard_normal(value.shape, np.float32)
    value += noise * (np.float32(scene.noise) * (_READ_NOISE + 2 * (1 - _READ_NOISE) * value))
    pixels = np.clip(value * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
