"""A random view into a furnished room, a corridor or a hall; all rooms share one floor level.

Sizes are what shops sell: they are, with the patterns, what tells a network how far away things
are. Lengths are metres.
"""

from itertools import product
from math import atan, cos, exp, pi, radians, sin
from typing import NamedTuple, TypeAlias

import numpy as np

from depthbal.data.rooms.builder import Builder, Look, Run
from depthbal.data.rooms.scene import Camera, Material, Pattern, Scene, Vector

PATTERNS = {
    "plain": Pattern(),
    "plaster": Pattern(0.04, 0.04, tone=0.08),
    "checker": Pattern(0.25, 0.25, check=1.0),
    "stripes": Pattern(0.10, 100.0, check=1.0),
    "bricks": Pattern(0.24, 0.08, joint=0.01, tone=0.5, shift=0.5),
    "planks": Pattern(1.20, 0.14, joint=0.006, tone=0.4, shift=0.37),
    "tiles": Pattern(0.30, 0.30, joint=0.01, tone=0.16),
    "mosaic": Pattern(0.10, 0.10, joint=0.006, tone=0.16),
    "panels": Pattern(0.45, 100.0, joint=0.012),
    "books": Pattern(0.04, 100.0, tone=1.2, mix=1.0),
    "carpet": Pattern(0.03, 0.03, tone=0.3, mix=0.3),
    "poster": Pattern(0.08, 0.08, tone=0.8, mix=1.0),
}
_BROWN = (1.0, 0.68, 0.38)
LOOKS = {
    "wall": Look("plaster bricks stripes tiles mosaic checker", (0.3, 0.8), 0.3, accent=0.65),
    "floor": Look("tiles tiles checker carpet", (0.1, 0.55), 0.3),
    "parquet": Look("planks", (0.1, 0.5), 0.15, _BROWN, accent=0.1),
    "ceiling": Look("plain plain plaster tiles", (0.6, 0.85), 0.05, accent=0.6),
    "wood": Look("plain plain planks", (0.08, 0.5), 0.15, _BROWN, accent=0.1),
    "frame": Look("plain", (0.1, 0.85), 0.05),
    "thing": Look("plain", (0.02, 0.6), 0.6),
    "cloth": Look("plain plain carpet stripes checker", (0.04, 0.7), 0.6),
    "doors": Look("panels", (0.1, 0.8), 0.3, accent=0.04),
    "books": Look("books", (0.1, 0.5), 0.9),
    "stone": Look("bricks mosaic plaster stripes", (0.25, 0.75), 0.15, accent=0.6),
    "leaf": Look("carpet", (0.06, 0.25), 0.2, (0.5, 1.0, 0.3), accent=0.3),
    "poster": Look("poster", (0.1, 0.6), 0.8),
    "glass": Look("plain", (0.9, 1.0), 0.05, (0.8, 0.9, 1.0), glow=(0.8, 3.5)),
    "lamp": Look("plain", (0.9, 1.0), 0.05, (1.0, 0.9, 0.7), glow=(0.5, 4.0)),
}
FURNITURE = """\
table 0.9 1.8  0.70 0.78  0.6 0.9
    wood  -1 1  0.95 1  -1 1
    wood  0.92 1  0 0.95  0.85 1  xz
    thing  -0.5 0  1 1.45  0 0.3
chair 0.42 0.48  0.84 0.96  0.42 0.48
    wood  -1 1  0.46 0.5  -1 1
    wood  -1 1  0.5 1  0.86 1
    wood  0.82 1  0 0.46  0.82 1  xz
shelf 0.6 1.6  0.9 2.0  0.28 0.34
    wood  0.95 1  0 1  -1 1  x
    wood  -1 1  0 1  0.92 1
    wood  -1 1  0 0.03  -1 1
    wood  -1 1  0.32 0.35  -1 1
    wood  -1 1  0.65 0.68  -1 1
    wood  -1 1  0.97 1  -1 1
    books  -0.95 0.6  0.03 0.25  -0.6 1
    books  -0.3 0.95  0.35 0.56  -0.6 1
    books  -0.95 0.9  0.68 0.9  -0.6 1
cupboard 0.3 2.0  0.75 2.20  0.4 0.6
    doors  -1 1  0 1  -1 1
kitchen 1.2 3.7  2.10 2.10  0.6 0.64
    doors  -1 1  0 0.41  -0.88 1
    frame  -1 1  0.41 0.43  -1 1
    stone  -1 1  0.43 0.69  0.94 1
    doors  -1 1  0.69 1  -0.1 1
sofa 0.85 2.3  0.78 0.88  0.85 0.95
    cloth  -1 1  0.06 0.5  -1 1
    cloth  -1 1  0.5 1  0.55 1
    cloth  0.84 1  0.5 0.74  -0.95 0.6  x
    poster  -0.55 -0.1  0.5 0.92  0.2 0.55
bed 0.9 1.8  0.85 1.10  2.0 2.1
    wood  -1 1  0.05 0.3  -1 1
    cloth  -0.97 0.97  0.3 0.5  -0.98 0.95
    frame  -0.7 0.7  0.5 0.6  0.5 0.9
    wood  -1 1  0.05 1  0.95 1
crates 0.4 0.6  0.8 1.40  0.35 0.5
    wood  -1 0.9  0 0.35  -1 1
    wood  -0.8 1  0.35 0.7  -0.9 0.8
    wood  -0.7 0.7  0.7 1  -0.9 0.9
lamp 0.3 0.4  1.5 1.70  0.3 0.4
    thing  -0.8 0.8  0 0.02  -1 1  pole
    thing  -0.1 0.1  0.02 0.85  -1 1  pole
    lamp  -1 1  0.82 1  -1 1  pole
plant 0.4 0.8  1.0 1.50  0.4 0.8
    thing  -0.5 0.5  0 0.22  -1 1  pole
    wood  -0.06 0.06  0.22 0.7  -1 1  pole
    leaf  -1 1  0.55 1  -1 1  ball
stool 0.28 0.48  0.3 0.60  0.28 0.48
    cloth  -1 1  0 1  -1 1  pole
pillar 0.25 0.5  4.0 4.00  0.25 0.5
    stone  -1 1  0 1  -1 1
column 0.25 0.55  4.0 4.00  0.25 0.55
    stone  -1 1  0 1  -1 1  pole
window 0.7 2.0  2.1 2.10  0.05 0.05
    frame  -1 1  0.43 1  0 1
    glass  -0.95 0.95  0.45 0.98  -0.3 1
    frame  -0.02 0.02  0.43 1  -1 1
picture 0.4 1.1  1.6 2.0  0.04 0.04
    frame  -1 1  0.6 1  0 1
    poster  -0.93 0.93  0.63 0.97  -0.3 1
door 0.85 0.85  2.0 2.0  0.04 0.04
    frame  -1 1  0 1  -0.3 1
    wood  -0.9 0.9  0 0.96  -1 1
"""

Opening: TypeAlias = tuple[float, float, float]  # a doorway's start and end along a wall, its top
_WALL = 0.12  # thickness of a wall, metres
# depth of the deepest corner where a room would be deeper than that, metres; what little lies
# beyond 10 m has no depth
_REACH = (9.0, 11.0)
_NEAREST = 0.74  # no wall or furniture is placed nearer than this, metres of depth
_DOOR = 0.45  # what has doors is a whole number of these wide
# what stands by walls, stands about, hangs on walls and carries the ceiling, each as likely
_BY_WALL = "table shelf shelf cupboard cupboard kitchen sofa bed crates lamp plant chair"
_IN_ROOM = "table chair chair chair sofa crates stool plant bed"
_ON_WALL = "window window picture picture door"
_POSTS = "pillar column"
# how furniture turns to have its back to each wall
_YAW = {"front": 0.0, "right": pi / 2, "left": -pi / 2}


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
        """Return where a wall begins and ends: x for the front one, z for left and right."""
        return (self.left, self.right) if wall == "front" else (self.back, self.front)

    def place(self, wall: str, along: float, off: float) -> tuple[float, float]:
        """Return the floor position (x, z) at `along` on a wall, `off` metres in front of it."""
        if wall == "front":
            return along, self.front - off
        return self.right - off if wall == "right" else self.left + off, along


class Stage(Builder):
    """A room under construction.

    The kinds of scenes together give depths distributed about as in NYU Depth V2.
    """

    name, version = "rooms", 3
    patterns, looks, table, clear = PATTERNS, LOOKS, FURNITURE, 1.1

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        super().__init__(rng, size)
        kind = float(rng.random())
        self.plan = _ROOM if kind < 0.76 else _CORRIDOR if kind < 0.85 else _HALL
        self.lights: list[tuple[Vector, Vector]] = []
        self.camera = Camera(
            *size,
            focal=size[1] * self._between(0.81, 0.89),  # fields of view of 59 to 63 degrees
            position=(0.0, self._between(1.0, 1.7), 0.0),
            yaw=radians(self._between(-self.plan.yaw, self.plan.yaw)),
            pitch=radians(min(max(float(rng.normal(9.0, 8.0)), -6.0), 26.0)),
            roll=radians(self._between(-3.0, 3.0)),
        )

    def scene(self) -> Scene:
        """Return the whole scene; the camera never turns so far that it would see the back wall."""
        room = self._room()
        doorway = self._next_room(room) if self._between(0, 1) < 0.25 else None
        self._build(room, doorway)
        self._light_up(room, int(self._between(1, 3.99)))
        side = "front right" if self.camera.yaw > 0 else "front left"
        for _ in range(3):
            self._furnish(room, _ON_WALL, self._pick(side))
        pieces = (room.right - room.left) * room.front * self._between(*self.plan.furniture)
        for _ in range(min(max(round(pieces), 4), 16)):
            if self._between(0, 1) < 0.6:
                self._furnish(room, _BY_WALL, self._pick("front right left"))
            else:
                self._furnish(room, _IN_ROOM)
        if self._between(0, 1) < self.plan.posts:
            post = self._pick(_POSTS)
            for _ in range(int(self._between(1, 5.99))):
                self._furnish(room, post)
        ambient, brightness = self._between(0.12, 0.4), self._between(0.4, 0.6)
        noise = self._between(0.004, 0.016)
        return Scene(self.camera, self.solids, self.lights, ambient, brightness, noise)

    def _room(self) -> Room:
        """Return a room around the camera that is neither too near nor too deep for the sensor."""
        (median, spread), (least, most) = self.plan.length, self.plan.limits
        length = min(max(median * exp(spread * self.rng.standard_normal()), least), most)
        half_view, sides = atan(self.camera.width / 2 / self.camera.focal), []
        for sign in (-1, 1):  # left, right: the outermost ray must not meet the wall too early
            turn = max(half_view + sign * self.camera.yaw, 0.0)
            near = _NEAREST * sin(turn) / cos(half_view)
            sides.append(sign * max(self._between(*self.plan.side), near, 0.4))
        left, right = sides
        room = Room(left, right, -0.5, length, self._between(2.4, 3.1))
        reach = self._between(*_REACH)
        while self._reach(room) > reach:
            left, right, front = (0.99 * wall for wall in (room.left, room.right, room.front))
            room = room._replace(left=left, right=right, front=front)
        return room

    def _reach(self, room: Room) -> float:
        corners = product(room[:2], (0.0, room.height), room[2:4])
        return float(self.camera.project(np.array(list(corners)))[:, 2].max())

    def _next_room(self, room: Room) -> Opening | None:
        """Build a room behind the front wall, where the sensor's range allows; return the way."""
        width = min(self._between(0.85, 2.2), room.right - room.left - 0.3)
        start = self._between(room.left + 0.1, room.right - 0.1 - width)
        left, right = start - self._between(0.2, 1.5), start + width + self._between(0.2, 1.5)
        back, far, reach = room.front + _WALL, self._between(1.5, 8.0), self._between(*_REACH)
        behind = Room(left, right, back, back + far, room.height)
        while self._reach(behind) > reach and behind.front > back + 1.0:
            behind = behind._replace(front=behind.front - 0.1)
        if behind.front <= back + 1.0 or width < 0.7:
            return None
        self._build(behind, None)
        self._light_up(behind, 1, strength=self._between(0.3, 1.5))
        for names in (_ON_WALL, _BY_WALL, _BY_WALL):
            self._furnish(behind, names, "front")
        for taken in self.taken.values():
            taken.append((start + width / 2, room.front, width / 2))
        return start, start + width, min(self._between(1.95, 2.3), room.height - 0.05)

    def _build(self, room: Room, doorway: Opening | None) -> None:
        """Build floor, ceiling and the three walls in view of a room."""
        left, right, back, front = (room[side] + _WALL * (-1) ** (side + 1) for side in range(4))
        floor, ceiling = self._material(self._pick("floor parquet")), self._material("ceiling")
        self._box((left, -0.1, back), (right, 0.0, front), floor)
        self._box((left, room.height, back), (right, room.height + 0.1, front), ceiling)
        plain, skirting = self._material("wall"), self._material("frame")
        accent = self._material("wall") if self._between(0, 1) < 0.3 else plain
        for wall in _YAW:
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

    def _light_up(self, room: Room, lamps: int, strength: float = 1.0) -> None:
        """Hang lamps under a room's ceiling; each is seen as a bright panel."""
        width, length = room.right - room.left, room.front - room.back
        for _ in range(lamps):
            x = self._between(room.left + 0.2 * width, room.right - 0.3)
            z = self._between(room.back + 0.4 * length, room.front - 0.4)
            y, look, side = room.height - 0.06, self._material("lamp"), self._between(0.1, 0.3)
            self._box((x - side, y, z - side / 2), (x + side, y + 0.05, z + side / 2), look)
            power = strength * self._between(0.5, 1.5) * (0.5 + 0.25 * width * length) / lamps
            r, g, b = (power * channel for channel in look.colour)
            self.lights.append(((x, y - 0.06, z), (r, g, b)))

    def _furnish(self, room: Room, names: str, wall: str = "") -> None:
        """Put one of some pieces with its back to a wall, or about the room, if there is space."""
        name = self._pick(names)
        width, height, depth = self._size(name)
        if name in ("cupboard", "kitchen"):
            width = _DOOR * round(width / _DOOR)
        size, radius = (width, height, depth), max(width, depth) / 2
        if wall:
            (start, end), margin = room.run(wall), width / 2 + 0.02
            if end - start > 2 * margin:
                along = self._between(start + margin, end - margin)
                self._put(name, size, *room.place(wall, along, depth / 2 + 0.02), _YAW[wall])
        else:
            x = self._between(room.left + radius, room.right - radius)
            z = self._between(0.8, room.front - radius)
            if room.right - room.left > 2 * radius and z + radius < room.front:
                self._put(name, size, x, z, self._between(-pi, pi))

    def _put(self, name: str, size: Vector, x: float, z: float, yaw: float) -> bool:
        """Put a piece of furniture in its place if nothing is in its way; lamps shine."""
        there = super()._put(name, size, x, z, yaw)
        if there and name == "lamp":
            self.lights.append(((x, size[1] + 0.1, z), (0.8, 0.7, 0.5)))
        return there
