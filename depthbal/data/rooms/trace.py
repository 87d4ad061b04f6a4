"""Which solid every pixel sees, how deep, and what the surface is like there."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from depthbal.data.rooms.camera import Camera
from depthbal.data.rooms.shapes import CYLINDER, SPHERE, Solid, corners, span, table

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.intp]


def trace(
    camera: Camera, solids: tuple[Solid, ...], rays: Floats | None = None
) -> tuple[Floats, Ints]:
    """Return each pixel's z-depth in metres (infinite: nothing there) and the index of its solid.

    Every solid is tested only inside the window of the image that can contain it. The depth is
    exact for the ray through the pixel's centre, to float32 rounding.

    Shapes: both (height, width).

    Example:
        >>> from depthbal.data.rooms.shapes import BOX
        >>> wall = Solid(BOX, (0.0, 0.0, 4.5), (9.0, 9.0, 0.5), material=0)
        >>> depth, index = trace(Camera(3, 4, 4.0, (0.0, 0.0, 0.0)), (wall,))
        >>> float(depth.min()), float(depth.max()), int(index.max())
        (4.0, 4.0, 0)
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


@dataclass(frozen=True)
class Surface:
    """What a set of N rays meets.

    Args:
        points: where, in world metres, (3, N).
        normals: unit vectors, (3, N).
        u: position on the surface in metres, sideways, (N,).
        v: position on the surface in metres, upwards where the surface is upright, (N,).
        material: index of the material, (N,).
    """

    points: Floats
    normals: Floats
    u: Floats
    v: Floats
    material: Ints


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
