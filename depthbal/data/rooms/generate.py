"""A random view into a furnished room, a corridor or a hall."""

from dataclasses import dataclass
from itertools import product
from math import atan, cos, exp, radians, sin

import numpy as np

from depthbal.data.rooms import furniture
from depthbal.data.rooms.floorplan import (
    OPPOSITE,
    YAW,
    Opening,
    Room,
    Side,
    build,
    decorate,
    light_up,
)
from depthbal.data.rooms.furniture import Maker, Piece
from depthbal.data.rooms.shapes import Camera
from depthbal.data.rooms.stage import Light, Scene, Stage

# depth of the deepest corner where a room would be deeper than that, metres; what little lies
# beyond 10 m has no depth
_REACH = (9.0, 11.0)
_NEAREST = 0.74  # no wall or furniture is placed nearer than this, metres of depth


@dataclass(frozen=True)
class Plan:
    """How a kind of scene is drawn, in metres and degrees."""

    share: float  # of all scenes
    length: tuple[float, float]  # median and spread (of the logarithm) of the way to the front wall
    limits: tuple[float, float]  # least and largest length
    side: tuple[float, float]  # range of the distance of the walls left and right of the camera
    yaw: float  # largest turn of the camera sideways
    furniture: tuple[float, float]  # range of the pieces tried per square metre of floor
    doorway: float  # share of scenes with a second room behind the front wall
    posts: float  # share of scenes with pillars or columns


_ROOM = Plan(0.76, (3.45, 0.38), (1.3, 9.0), (0.5, 2.8), 45.0, (0.35, 1.1), 0.22, 0.06)
_CORRIDOR = Plan(0.09, (6.0, 0.5), (2.0, 14.0), (0.5, 1.1), 10.0, (0.1, 0.4), 0.35, 0.15)
_HALL = Plan(0.15, (6.2, 0.45), (3.5, 14.0), (1.5, 5.0), 40.0, (0.15, 0.45), 0.25, 0.6)


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Return a scene drawn with `rng` and seen by a camera with (height, width) pixels.

    The kinds of scenes together give depths distributed about as in NYU Depth V2.
    """
    stage = Stage(rng)
    draw, plan = float(rng.random()), _ROOM
    for candidate in (_ROOM, _CORRIDOR, _HALL):
        plan, draw = candidate, draw - candidate.share
        if draw < 0:
            break
    camera = _camera(stage, plan, size)
    room = _room(stage, plan, camera)
    stage.taken.append((0.0, 0.0, 1.0 if plan is _ROOM else 1.2))
    _build(stage, plan, room, camera)
    _furnish(stage, room, plan)
    if stage.chance(plan.posts):
        _posts(stage, room)
    return Scene(
        camera,
        tuple(stage.solids),
        tuple(stage.materials),
        tuple(stage.lights),
        ambient=stage.between(0.12, 0.4),
        brightness=stage.between(0.4, 0.6),
        noise=stage.between(0.004, 0.016),
    )


def _camera(stage: Stage, plan: Plan, size: tuple[int, int]) -> Camera:
    height, width = size
    pitch = min(max(float(stage.rng.normal(9.0, 8.0)), -6.0), 26.0)
    return Camera(
        height=height,
        width=width,
        focal=width * stage.between(0.81, 0.89),  # fields of view of 59 to 63 degrees
        position=(0.0, stage.between(1.0, 1.7), 0.0),
        yaw=radians(stage.between(-plan.yaw, plan.yaw)),
        pitch=radians(pitch),
        roll=radians(stage.between(-3.0, 3.0)),
    )


def _room(stage: Stage, plan: Plan, camera: Camera) -> Room:
    """Return a room around the camera that is neither too near nor too deep for the sensor."""
    length = plan.length[0] * exp(plan.length[1] * float(stage.rng.standard_normal()))
    length = min(max(length, plan.limits[0]), plan.limits[1])
    half_view = atan(camera.width / 2 / camera.focal)
    sides = []
    for sign in (1, -1):  # right, left: the outermost ray must not meet the wall too early
        turn = half_view + sign * camera.yaw
        near = _NEAREST * sin(turn) / cos(half_view) if turn > 0 else 0.0
        sides.append(max(stage.between(*plan.side), near, 0.4))
    rise = stage.between(2.7, 3.6) if plan is _HALL else stage.between(2.4, 2.9)
    room = Room(-sides[1], sides[0], -0.5, length, rise)
    reach = stage.between(*_REACH)
    while _reach(camera, room) > reach:
        room = Room(room.left * 0.99, room.right * 0.99, room.back, room.front * 0.99, room.height)
    return room


def _reach(camera: Camera, room: Room) -> float:
    """Return the depth of a room's deepest corner."""
    corners = product((room.left, room.right), (0.0, room.height), (room.back, room.front))
    return float(camera.depth_of(np.array(list(corners))).max())


def _build(stage: Stage, plan: Plan, room: Room, camera: Camera) -> None:
    """Build the room, perhaps with a doorway to another one, and light both."""
    openings: dict[Side, Opening] = {}
    light_up(stage, room, int(stage.between(1, 3.99)))
    if stage.chance(plan.doorway):
        _next_room(stage, room, camera, "front", openings)
    side: Side = "right" if camera.yaw > 0 else "left"
    if stage.chance(plan.doorway) and room.front > 2.5:
        _next_room(stage, room, camera, side, openings)
    build(stage, room, openings, skip=None)
    for wall in ("front", side):
        for _ in range(2):
            decorate(stage, room, wall, openings.get(wall))


def _next_room(
    stage: Stage, room: Room, camera: Camera, side: Side, openings: dict[Side, Opening]
) -> None:
    """Open a doorway in a wall and build what is behind it, where the sensor's range allows."""
    start, end = room.run(side)
    start = max(start, 0.9) if side != "front" else start
    width = min(stage.between(0.85, 2.2), end - start - 0.3)
    if width < 0.7:
        return
    begin = stage.between(start + 0.1, end - 0.1 - width)
    opening = Opening(begin, begin + width, min(stage.between(1.95, 2.3), room.height - 0.05))
    low, high = begin - stage.between(0.2, 1.5), begin + width + stage.between(0.2, 1.5)
    far, reach = stage.between(1.5, 8.0), stage.between(*_REACH)
    while far > 1.0:
        behind = room.neighbour(side, low, high, far)
        if _reach(camera, behind) < reach:
            break
        far -= 0.1
    else:
        return
    openings[side] = opening
    build(stage, behind, {}, skip=OPPOSITE[side])
    light_up(stage, behind, 1, strength=stage.between(0.3, 1.5))
    decorate(stage, behind, side, None)
    for _ in range(int(stage.between(0, 3.99))):
        _against_wall(stage, behind, side)


def _furnish(stage: Stage, room: Room, plan: Plan) -> None:
    """Put furniture along the walls in view and about the room."""
    area = (room.right - room.left) * room.front
    count = min(max(round(area * stage.between(*plan.furniture)), 4), 16)
    sides: tuple[Side, ...] = ("front", "right", "left")
    for _ in range(count):
        if plan is _CORRIDOR or stage.chance(0.6):
            _against_wall(stage, room, sides[int(stage.rng.random() * 3)])
            continue
        piece = _pick(stage, furniture.IN_ROOM)(stage)
        radius = max(piece.width, piece.depth) / 2
        x = stage.between(room.left + radius, room.right - radius)
        z = stage.between(0.8, room.front - radius)
        if room.left + radius < room.right - radius and z + radius < room.front:
            _put(stage, piece, x, z, stage.between(-3.14, 3.14))


def _against_wall(stage: Stage, room: Room, side: Side) -> None:
    maker = _pick(stage, furniture.BY_WALL)
    piece = maker(stage)
    start, end = room.run(side)
    low, high = start + piece.width / 2 + 0.02, end - piece.width / 2 - 0.02
    if low < high:
        x, z = room.on_wall(side, stage.between(low, high), piece.depth / 2 + 0.03)
        if _put(stage, piece, x, z, YAW[side]) and maker is furniture.floor_lamp:
            stage.lights.append(Light((x, 1.7, z), (0.8, 0.7, 0.5)))


def _posts(stage: Stage, room: Room) -> None:
    """Put a few equal posts about the room."""
    piece = _pick(stage, (furniture.column, furniture.pillar))(stage)
    for _ in range(int(stage.between(1, 5.99))):
        x = stage.between(room.left + 0.3, max(room.right - 0.3, room.left + 0.4))
        _put(stage, piece, x, stage.between(1.4, max(room.front - 0.3, 1.5)), 0.0)


def _pick(stage: Stage, makers: tuple[Maker, ...]) -> Maker:
    return makers[int(stage.rng.random() * len(makers))]


def _put(stage: Stage, piece: Piece, x: float, z: float, yaw: float) -> bool:
    """Put a piece of furniture on stage if nothing is in its way."""
    radius = 0.5 * (piece.width * piece.depth) ** 0.5  # of the square of equal area
    away = 0.5 * (piece.width**2 + piece.depth**2) ** 0.5 - radius
    at_camera = (x * x + z * z) ** 0.5 < stage.taken[0][2] + radius + away
    if at_camera or any(
        (x - a) ** 2 + (z - b) ** 2 <= (radius + r) ** 2 for a, b, r in stage.taken
    ):
        return False
    stage.taken.append((x, z, radius))
    stage.solids.extend(solid.placed(x, z, yaw) for solid in piece.solids)
    return True
