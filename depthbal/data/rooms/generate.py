"""A random view into a furnished room, a corridor or a hall; all rooms share one floor level."""

from itertools import product
from math import atan, cos, exp, hypot, pi, radians, sin
from typing import NamedTuple, TypeAlias

import numpy as np

from depthbal.data.rooms.furniture import (
    BY_WALL,
    IN_ROOM,
    ON_WALL,
    POSTS,
    Dice,
    Run,
    furniture,
)
from depthbal.data.rooms.scene import (
    BOX,
    CYLINDER,
    SPHERE,
    Camera,
    Light,
    Material,
    Scene,
    Solid,
    Vector,
)

Opening: TypeAlias = tuple[float, float, float]  # a doorway's start and end along a wall, its top
_WALL = 0.12  # thickness of a wall, metres
# depth of the deepest corner where a room would be deeper than that, metres; what little lies
# beyond 10 m has no depth
_REACH = (9.0, 11.0)
_NEAREST = 0.74  # no wall or furniture is placed nearer than this, metres of depth
_CLEAR = 1.1  # nothing stands nearer to the camera
_DOOR = 0.45  # what has doors is a whole number of these wide
# how furniture turns to have its back to each wall
_YAW = {"front": 0.0, "right": pi / 2, "left": -pi / 2, "back": pi}


class Plan(NamedTuple):
    """How a kind of scene is drawn, in metres and degrees."""

    length: tuple[float, float]  # median and spread (of the logarithm) of the way to the front wall
    limits: Run  # least and largest length
    side: Run  # range of the distance of the walls left and right of the camera
    yaw: float  # largest turn of the camera sideways
    furniture: Run  # range of the pieces tried per square metre of floor
    posts: float  # share of scenes with pillars or columns


_ROOM = Plan((3.45, 0.38), (1.3, 9.0), (0.5, 2.8), 45.0, (0.35, 1.1), 0.06)
_CORRIDOR = Plan((6.0, 0.5), (2.0, 14.0), (0.5, 1.1), 10.0, (0.1, 0.4), 0.15)
_HALL = Plan((6.2, 0.45), (3.5, 14.0), (1.5, 5.0), 40.0, (0.15, 0.45), 0.6)


class Room(NamedTuple):
    """The free space between four walls, a floor at y = 0 and a ceiling, in metres."""

    left: float
    right: float
    back: float
    front: float
    height: float

    def run(self, wall: str) -> Run:
        """Return where a wall begins and ends: x for front and back, z for left and right."""
        return (self.left, self.right) if wall in ("front", "back") else (self.back, self.front)

    def place(self, wall: str, along: float, off: float) -> tuple[float, float]:
        """Return the floor position (x, z) at `along` on a wall, `off` metres in front of it."""
        if wall in ("front", "back"):
            return along, self.front - off if wall == "front" else self.back + off
        return self.right - off if wall == "right" else self.left + off, along


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Return a scene drawn with `rng` and seen by a camera with (height, width) pixels.

    The kinds of scenes together give depths distributed about as in NYU Depth V2.
    """
    return _Stage(rng, size).scene()


class _Stage(Dice):
    """A scene under construction: nothing overlaps, chance decides everything."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        super().__init__(rng)
        kind = float(rng.random())
        self.plan = _ROOM if kind < 0.76 else _CORRIDOR if kind < 0.85 else _HALL
        self.solids: list[Solid] = []
        self.lights: list[Light] = []
        # circles (x, z, radius) on the floor where nothing else may stand (False) or hang (True)
        self.taken: dict[bool, list[Vector]] = {False: [], True: []}
        self.camera = Camera(
            *size,
            focal=size[1] * self.between(0.81, 0.89),  # fields of view of 59 to 63 degrees
            position=(0.0, self.between(1.0, 1.7), 0.0),
            yaw=radians(self.between(-self.plan.yaw, self.plan.yaw)),
            pitch=radians(min(max(float(rng.normal(9.0, 8.0)), -6.0), 26.0)),
            roll=radians(self.between(-3.0, 3.0)),
        )

    def scene(self) -> Scene:
        """Return the whole scene."""
        room = self._room()
        doorway = self._next_room(room) if self.chance(0.25) else None
        self._build(room, doorway)
        self._light_up(room, int(self.between(1, 3.99)))
        side = "front right" if self.camera.yaw > 0 else "front left"
        for _ in range(3):
            self._by_wall(room, self.pick(side), ON_WALL)
        pieces = (room.right - room.left) * room.front * self.between(*self.plan.furniture)
        for _ in range(min(max(round(pieces), 4), 16)):
            if self.chance(0.6):
                self._by_wall(room, self.pick("front right left"), BY_WALL)
            else:
                self._anywhere(room, IN_ROOM)
        if self.chance(self.plan.posts):
            post = self.pick(POSTS)
            for _ in range(int(self.between(1, 5.99))):
                self._anywhere(room, post)
        return Scene(
            self.camera,
            self.solids,
            self.lights,
            ambient=self.between(0.12, 0.4),
            brightness=self.between(0.4, 0.6),
            noise=self.between(0.004, 0.016),
        )

    def _room(self) -> Room:
        """Return a room around the camera that is neither too near nor too deep for the sensor."""
        (median, spread), (least, most) = self.plan.length, self.plan.limits
        length = min(max(median * exp(spread * self.rng.standard_normal()), least), most)
        half_view, sides = atan(self.camera.width / 2 / self.camera.focal), []
        for sign in (-1, 1):  # left, right: the outermost ray must not meet the wall too early
            turn = max(half_view + sign * self.camera.yaw, 0.0)
            near = _NEAREST * sin(turn) / cos(half_view)
            sides.append(sign * max(self.between(*self.plan.side), near, 0.4))
        left, right = sides
        room = Room(left, right, -0.5, length, self.between(2.4, 3.1))
        reach = self.between(*_REACH)
        while self._reach(room) > reach:
            left, right, front = (0.99 * wall for wall in (room.left, room.right, room.front))
            room = room._replace(left=left, right=right, front=front)
        return room

    def _reach(self, room: Room) -> float:
        """Return the depth of a room's deepest corner."""
        corners = product(room[:2], (0.0, room.height), room[2:4])
        return float(self.camera.project(np.array(list(corners)))[:, 2].max())

    def _next_room(self, room: Room) -> Opening | None:
        """Build a room behind the front wall, where the sensor's range allows; return the way."""
        width = min(self.between(0.85, 2.2), room.right - room.left - 0.3)
        start = self.between(room.left + 0.1, room.right - 0.1 - width)
        left, right = start - self.between(0.2, 1.5), start + width + self.between(0.2, 1.5)
        back, far, reach = room.front + _WALL, self.between(1.5, 8.0), self.between(*_REACH)
        behind = Room(left, right, back, back + far, room.height)
        while self._reach(behind) > reach and behind.front > back + 1.0:
            behind = behind._replace(front=behind.front - 0.1)
        if behind.front <= back + 1.0 or width < 0.7:
            return None
        self._build(behind, None, skip="back")
        self._light_up(behind, 1, strength=self.between(0.3, 1.5))
        for names in (ON_WALL, BY_WALL, BY_WALL):
            self._by_wall(behind, "front", names)
        for taken in self.taken.values():
            taken.append((start + width / 2, room.front, width / 2))
        return start, start + width, min(self.between(1.95, 2.3), room.height - 0.05)

    def _build(self, room: Room, doorway: Opening | None, skip: str = "") -> None:
        """Build floor, ceiling and walls of a room; `skip` is a wall that is already there."""
        left, right, back, front = (room[side] + _WALL * (-1) ** (side + 1) for side in range(4))
        floor, ceiling = self.material(self.pick("floor parquet")), self.material("ceiling")
        self._box((left, -0.1, back), (right, 0.0, front), floor)
        self._box((left, room.height, back), (right, room.height + 0.1, front), ceiling)
        plain, skirting = self.material("wall"), self.material("frame")
        accent = self.material("wall") if self.chance(0.3) else plain
        for wall in _YAW:
            if wall == skip:
                continue
            start, end = room.run(wall)
            pieces = [(start - _WALL, end + _WALL, 0.0)]
            if wall == "front" and doorway:
                low, high, top = doorway
                pieces = [(start - _WALL, low, 0.0), (high, end + _WALL, 0.0), doorway]
                for at in (low, high):
                    rise, off = (0.0, top), (-_WALL - 0.01, 0.02)
                    self._mount(room, wall, (at - 0.05, at + 0.05), rise, off, skirting)
            look = accent if wall == "front" else plain
            for low, high, y in pieces:
                self._mount(room, wall, (low, high), (y, room.height), (-_WALL, 0.0), look)
                if y == 0:
                    self._mount(room, wall, (low, high), (0.0, 0.08), (0.0, 0.015), skirting)

    def _mount(self, room: Room, wall: str, run: Run, rise: Run, off: Run, look: Material) -> None:
        """Put a box on a wall: along it, up it, and off it (negative: inside it), in metres."""
        (x, z), (other_x, other_z) = (room.place(wall, run[end], off[end]) for end in (0, 1))
        self._box((x, rise[0], z), (other_x, rise[1], other_z), look)

    def _box(self, low: Vector, high: Vector, look: Material) -> None:
        """Add a part of the building between two corners; it casts no shadow."""
        x, y, z = ((one + other) / 2 for one, other in zip(low, high, strict=True))
        a, b, c = (abs(one - other) / 2 for one, other in zip(low, high, strict=True))
        self.solids.append(Solid(BOX, (x, y, z), (a, b, c), look, shadows=False))

    def _light_up(self, room: Room, lamps: int, strength: float = 1.0) -> None:
        """Hang lamps under a room's ceiling; each is seen as a bright panel."""
        width, length = room.right - room.left, room.front - room.back
        for _ in range(lamps):
            x = self.between(room.left + 0.2 * width, room.right - 0.3)
            z = self.between(room.back + 0.4 * length, room.front - 0.4)
            y, look, side = room.height - 0.06, self.material("lamp"), self.between(0.1, 0.3)
            self._box((x - side, y, z - side / 2), (x + side, y + 0.05, z + side / 2), look)
            power = strength * self.between(0.5, 1.5) * (0.5 + 0.25 * width * length) / lamps
            r, g, b = (power * channel for channel in look.colour)
            self.lights.append(Light((x, y - 0.06, z), (r, g, b)))

    def _by_wall(self, room: Room, wall: str, names: str) -> None:
        """Put one of some pieces with its back to a wall, if there is room."""
        name, size = self._piece(names)
        start, end = room.run(wall)
        margin = size[0] / 2 + 0.02
        if end - start > 2 * margin:
            at = self.between(start + margin, end - margin)
            self._put(name, size, *room.place(wall, at, size[2] / 2 + 0.02), _YAW[wall])

    def _anywhere(self, room: Room, names: str) -> None:
        """Put one of some pieces about the room, if there is room."""
        name, size = self._piece(names)
        radius = max(size[0], size[2]) / 2
        x = self.between(room.left + radius, room.right - radius)
        z = self.between(0.8, room.front - radius)
        if room.right - room.left > 2 * radius and z + radius < room.front:
            self._put(name, size, x, z, self.between(-pi, pi))

    def _piece(self, names: str) -> tuple[str, Vector]:
        """Return the name and the size of one of some pieces."""
        name = self.pick(names)
        width, height, depth = (self.between(*size) for size in furniture()[name].sizes)
        if name in ("cupboard", "kitchen"):
            width = _DOOR * round(width / _DOOR)
        return name, (width, height, depth)

    def _put(self, name: str, size: Vector, x: float, z: float, yaw: float) -> None:
        """Put a piece of furniture in its place if nothing is in its way."""
        width, height, depth = size
        hangs = depth < 0.1
        radius = width / 2 if hangs else 0.5 * (width * depth) ** 0.5  # of a square of equal area
        if hypot(x, z) < _CLEAR + 0.5 * hypot(width, depth) or any(
            hypot(x - a, z - b) < radius + other for a, b, other in self.taken[hangs]
        ):
            return
        self.taken[hangs].append((x, z, radius))
        if name == "lamp":
            self.lights.append(Light((x, height + 0.1, z), (0.8, 0.7, 0.5)))
        parts, c, s = furniture()[name].parts, cos(yaw), sin(yaw)
        looks = {look: self.material(look) for look in dict.fromkeys(part[0] for part in parts)}
        for look, kind, (right, up, back), (a, b, d) in parts:
            right, back = right * width / 2, back * depth / 2
            centre = x + c * right + s * back, up * height, z + c * back - s * right
            a, b, d = a * width / 2, b * height, d * depth / 2
            half = {BOX: (a, b, d), CYLINDER: (a, b, a), SPHERE: (a, a, a)}[kind]
            self.solids.append(Solid(kind, centre, half, looks[look], yaw, not hangs))
