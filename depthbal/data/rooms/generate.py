"""A random view into a furnished room, a corridor or a hall; all rooms share one floor level."""

from functools import partial
from itertools import product
from math import atan, cos, exp, pi, radians, sin
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from depthbal.data.rooms.furniture import BY_WALL, IN_ROOM, POSTS, Dice, Piece, floor_lamp
from depthbal.data.rooms.scene import Camera, Light, Material, Scene, Solid, block

Run: TypeAlias = tuple[float, float]
Opening: TypeAlias = tuple[float, float, float]  # a doorway's start and end along a wall, its top
_WALL = 0.12  # thickness of a wall, metres
# depth of the deepest corner where a room would be deeper than that, metres; what little lies
# beyond 10 m has no depth
_REACH = (9.0, 11.0)
_NEAREST = 0.74  # no wall or furniture is placed nearer than this, metres of depth


class Plan(NamedTuple):
    """How a kind of scene is drawn, in metres and degrees."""

    length: tuple[float, float]  # median and spread (of the logarithm) of the way to the front wall
    limits: Run  # least and largest length
    side: Run  # range of the distance of the walls left and right of the camera
    height: Run
    yaw: float  # largest turn of the camera sideways
    furniture: Run  # range of the pieces tried per square metre of floor
    doorway: float  # share of scenes with a second room behind the front wall
    posts: float  # share of scenes with pillars or columns


_ROOM = Plan((3.45, 0.38), (1.3, 9.0), (0.5, 2.8), (2.4, 2.9), 45.0, (0.35, 1.1), 0.22, 0.06)
_CORRIDOR = Plan((6.0, 0.5), (2.0, 14.0), (0.5, 1.1), (2.4, 2.9), 10.0, (0.1, 0.4), 0.35, 0.15)
_HALL = Plan((6.2, 0.45), (3.5, 14.0), (1.5, 5.0), (2.7, 3.6), 40.0, (0.15, 0.45), 0.25, 0.6)


_WALLS = "plaster bricks stripes stripes tiles small_tiles checker checker".split()
_FLOORS = "planks planks planks tiles tiles checker carpet".split()
_CEILINGS = ["plain", "plain", "plaster", "tiles"]


class Side(NamedTuple):
    """One of four walls: its axis (0 is x, 1 is z), its end of it, how furniture turns its back."""

    axis: int
    end: int
    yaw: float


FRONT, RIGHT, LEFT, BACK = Side(1, 1, 0.0), Side(0, 1, pi / 2), Side(0, 0, -pi / 2), Side(1, 0, pi)
# the wall that two rooms share has another name in each
_OPPOSITE = {FRONT: BACK, RIGHT: LEFT, LEFT: RIGHT}


class Room(NamedTuple):
    """The free space between walls at both ends of x and z, a floor at y = 0 and a ceiling."""

    walls: tuple[Run, Run]
    height: float

    def run(self, side: Side) -> Run:
        """Return where a wall begins and ends: x for front and back, z for left and right."""
        return self.walls[1 - side.axis]

    def on_wall(self, side: Side, along: float, off: float) -> tuple[float, float]:
        """Return the floor position (x, z) at `along` on a wall, `off` metres in front of it."""
        at = self.walls[side.axis][side.end] + (-off if side.end else off)
        return (along, at) if side.axis else (at, along)


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
        # circles (x, z, radius) on the floor where nothing may stand, the camera's first
        self.taken = [(0.0, 0.0, 1.0 if self.plan is _ROOM else 1.2)]
        pitch = min(max(float(rng.normal(9.0, 8.0)), -6.0), 26.0)
        self.camera = Camera(
            *size,
            focal=size[1] * self.between(0.81, 0.89),  # fields of view of 59 to 63 degrees
            position=(0.0, self.between(1.0, 1.7), 0.0),
            yaw=radians(self.between(-self.plan.yaw, self.plan.yaw)),
            pitch=radians(pitch),
            roll=radians(self.between(-3.0, 3.0)),
        )

    def scene(self) -> Scene:
        """Return the whole scene."""
        room, side = self._room(), RIGHT if self.camera.yaw > 0 else LEFT
        openings: dict[Side, Opening | None] = {}
        self._light_up(room, int(self.between(1, 3.99)))
        if self.chance(self.plan.doorway):
            openings[FRONT] = self._next_room(room, FRONT)
        if self.chance(self.plan.doorway) and room.walls[1][1] > 2.5:
            openings[side] = self._next_room(room, side)
        self._build(room, openings)
        for wall in (FRONT, FRONT, side, side):
            self._decorate(room, wall, openings.get(wall))
        self._furnish(room)
        if self.chance(self.plan.posts):
            self._posts(room)
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
        camera, (median, spread), limits = self.camera, self.plan.length, self.plan.limits
        length = median * exp(spread * float(self.rng.standard_normal()))
        length = min(max(length, limits[0]), limits[1])
        half_view = atan(camera.width / 2 / camera.focal)
        sides = []
        for sign in (1, -1):  # right, left: the outermost ray must not meet the wall too early
            turn = half_view + sign * camera.yaw
            near = _NEAREST * sin(turn) / cos(half_view) if turn > 0 else 0.0
            sides.append(max(self.between(*self.plan.side), near, 0.4))
        right, left = sides
        height, reach = self.between(*self.plan.height), self.between(*_REACH)
        while self._reach(room := Room(((-left, right), (-0.5, length)), height)) > reach:
            left, right, length = left * 0.99, right * 0.99, length * 0.99
        return room

    def _reach(self, room: Room) -> float:
        """Return the depth of a room's deepest corner."""
        corners = list(product(room.walls[0], (0.0, room.height), room.walls[1]))
        return float(self.camera.project(np.array(corners))[:, 2].max())

    def _next_room(self, room: Room, side: Side) -> Opening | None:
        """Build a room behind a doorway and return that, where the sensor's range allows."""
        start, end = room.run(side)
        start = max(start, 0.9) if side != FRONT else start
        width = min(self.between(0.85, 2.2), end - start - 0.3)
        if width < 0.7:
            return None
        begin = self.between(start + 0.1, end - 0.1 - width)
        opening = begin, begin + width, min(self.between(1.95, 2.3), room.height - 0.05)
        run = begin - self.between(0.2, 1.5), begin + width + self.between(0.2, 1.5)
        far, reach = self.between(1.5, 8.0), self.between(*_REACH)
        while far > 1.0:
            near = room.walls[side.axis][side.end] + (_WALL if side.end else -_WALL)
            across = (near, near + far) if side.end else (near - far, near)
            behind = Room((run, across) if side.axis else (across, run), room.height)
            if self._reach(behind) < reach:
                break
            far -= 0.1
        else:
            return None
        self._build(behind, {}, skip=_OPPOSITE[side])
        self._light_up(behind, 1, strength=self.between(0.3, 1.5))
        self._decorate(behind, side, None)
        for _ in range(int(self.between(0, 3.99))):
            self._against_wall(behind, side)
        return opening

    def _build(
        self, room: Room, openings: dict[Side, Opening | None], skip: Side | None = None
    ) -> None:
        """Build floor, ceiling and walls of a room; `skip` is a wall that is already there."""
        wall, floor, ceiling = self._wall_look(), self._floor_look(), self._ceiling_look()
        (left, right), (back, front) = room.walls
        for y, look in ((-0.1, floor), (room.height, ceiling)):
            size = right - left + 2 * _WALL, 0.1, front - back + 2 * _WALL
            self._fixed((left + right) / 2, y, (back + front) / 2, *size, look)
        accent = self._wall_look() if self.chance(0.3) else wall
        for side in (FRONT, RIGHT, LEFT, BACK):
            if side != skip:
                self._wall(room, side, openings.get(side), accent if side == FRONT else wall)

    def _wall(self, room: Room, side: Side, opening: Opening | None, look: Material) -> None:
        """Build a wall and its skirting board, with a hole where the doorway is."""
        start, end = room.run(side)
        pieces = [(start - _WALL, end + _WALL, 0.0)]
        if opening:
            pieces = [(start - _WALL, opening[0], 0.0), (opening[1], end + _WALL, 0.0), opening]
        skirting = Material("plain", self.wood() if self.chance(0.5) else (0.7, 0.7, 0.68))
        mount = partial(self._mount, room, side)
        for low, high, bottom in pieces:
            if high - low > 0.01:
                mount((low, high), (bottom, room.height), (-_WALL, 0.0), look)
                if bottom == 0.0:
                    mount((low, high), (0.0, 0.08), (0.0, 0.015), skirting)
        for at in opening[:2] if opening else ():
            mount((at - 0.05, at + 0.05), (0.0, opening[2]), (-_WALL - 0.01, 0.02), skirting)

    def _decorate(self, room: Room, side: Side, opening: Opening | None) -> None:
        """Hang a window, a picture or a closed door on a wall that has room for it."""
        start, end = room.run(side)
        kind = self.pick(("window", "window", "picture", "picture", "door", "nothing"))
        width = {"window": self.between(0.7, 2.0), "picture": self.between(0.4, 1.1)}.get(kind, 0.85)
        at = self.between(start + 0.2, max(end - 0.2 - width, start + 0.2))
        blocked = opening and at < opening[1] + 0.1 and at + width > opening[0] - 0.1
        if kind == "nothing" or blocked or at + width > end - 0.1:
            return
        low, high = {"window": (0.9, 2.1), "door": (0.0, 2.0)}.get(kind, (1.2, 1.2 + width * 0.75))
        high = min(high, room.height - 0.1)
        if kind == "window":
            look = Material("plain", (0.8, 0.9, 1.0), glow=self.between(0.8, 3.5))
        elif kind == "door":
            look = Material("plain", self.wood() if self.chance(0.5) else (0.65, 0.65, 0.62))
        else:
            look = Material("picture", self.shade(0.1, 0.6, 0.8), self.shade(0.1, 0.6, 0.8))
        frame = Material("plain", self.wood() if self.chance(0.4) else (0.75, 0.75, 0.75))
        edge, mount = 0.04, partial(self._mount, room, side)
        mount((at, at + width), (low, high), (0.0, 0.02), frame)
        inner = (at + edge, at + width - edge), (low + edge * (low > 0), high - edge)
        mount(*inner, (0.0, 0.025), look)
        if kind == "window":
            middle = at + width / 2
            mount((middle - 0.02, middle + 0.02), (low, high), (0.0, 0.04), frame)

    def _mount(
        self, room: Room, side: Side, run: Run, rise: Run, off: Run, look: Material
    ) -> None:
        """Put a box on a wall: along it, up it, and off it (negative: inside it), in metres."""
        x, z = room.on_wall(side, (run[0] + run[1]) / 2, (off[0] + off[1]) / 2)
        width, depth = run[1] - run[0], off[1] - off[0]
        if side.axis == 0:
            width, depth = depth, width
        self._fixed(x, rise[0], z, width, rise[1] - rise[0], depth, look)

    def _fixed(self, *sizes_and_look: Any) -> None:
        """Add a part of the building, a `block` that casts no shadow."""
        self.solids.append(block(*sizes_and_look)._replace(shadows=False))

    def _light_up(self, room: Room, lamps: int, strength: float = 1.0) -> None:
        """Hang lamps under a room's ceiling; each is seen as a bright panel."""
        (left, right), (back, front) = room.walls
        area = (right - left) * (front - back)
        for _ in range(lamps):
            x = self.between(left + 0.2 * (right - left), right - 0.3)
            z = self.between(back + 0.4 * (front - back), front - 0.4)
            tint = self.between(0.0, 0.35)
            power = strength * self.between(0.5, 1.5) * (0.5 + 0.25 * area) / lamps
            glow = Material("plain", (1.0, 1.0 - tint / 3, 1.0 - tint), glow=4.0)
            side = self.between(0.15, 0.3)
            self._fixed(x, room.height - 0.06, z, 2 * side, 0.05, side, glow)
            colour = (power, power * (1 - tint / 3), power * (1 - tint))
            self.lights.append(Light((x, room.height - 0.12, z), colour))

    def _wall_look(self) -> Material:
        pattern = self.pick(_WALLS)
        if pattern == "bricks":
            return Material(pattern, (self.between(0.25, 0.5), 0.16, 0.1), (0.5, 0.48, 0.45))
        r, g, b = self.shade(0.35, 0.8, 0.3)
        darker = self.between(0.5, 0.8)
        return Material(pattern, (r, g, b), (r * darker, g * darker, b * darker))

    def _floor_look(self) -> Material:
        pattern = self.pick(_FLOORS)
        if pattern == "planks":
            return Material(pattern, self.wood(), (0.02, 0.015, 0.01))
        if pattern == "checker":
            return Material(pattern, self.shade(0.4, 0.7, 0.1), self.shade(0.04, 0.2, 0.2))
        return Material(pattern, self.shade(0.1, 0.5, 0.3), self.shade(0.05, 0.5, 0.2))

    def _ceiling_look(self) -> Material:
        return Material(self.pick(_CEILINGS), self.shade(0.6, 0.85, 0.05), (0.4, 0.4, 0.4))

    def _furnish(self, room: Room) -> None:
        """Put furniture along the walls in view and about the room."""
        (left, right), (_, front) = room.walls
        pieces = round((right - left) * front * self.between(*self.plan.furniture))
        for _ in range(min(max(pieces, 4), 16)):
            if self.plan is _CORRIDOR or self.chance(0.6):
                self._against_wall(room, self.pick((FRONT, RIGHT, LEFT)))
                continue
            piece = self.pick(IN_ROOM)(self)
            radius = max(piece[:2]) / 2
            x = self.between(left + radius, right - radius)
            z = self.between(0.8, front - radius)
            if left + radius < right - radius and z + radius < front:
                self._put(piece, x, z, self.between(-3.14, 3.14))

    def _against_wall(self, room: Room, side: Side) -> None:
        maker = self.pick(BY_WALL)
        piece = width, depth, _ = maker(self)
        start, end = room.run(side)
        low, high = start + width / 2 + 0.02, end - width / 2 - 0.02
        if low < high:
            x, z = room.on_wall(side, self.between(low, high), depth / 2 + 0.03)
            if self._put(piece, x, z, side.yaw) and maker is floor_lamp:
                self.lights.append(Light((x, 1.7, z), (0.8, 0.7, 0.5)))

    def _posts(self, room: Room) -> None:
        """Put a few equal posts about the room."""
        piece = self.pick(POSTS)(self)
        (left, right), (_, front) = room.walls
        for _ in range(int(self.between(1, 5.99))):
            x = self.between(left + 0.3, max(right - 0.3, left + 0.4))
            self._put(piece, x, self.between(1.4, max(front - 0.3, 1.5)), 0.0)

    def _put(self, piece: Piece, x: float, z: float, yaw: float) -> bool:
        """Put a piece of furniture on stage if nothing is in its way."""
        width, depth, solids = piece
        radius = 0.5 * (width * depth) ** 0.5  # of the square of equal area
        away = 0.5 * (width**2 + depth**2) ** 0.5 - radius
        at_camera = (x * x + z * z) ** 0.5 < self.taken[0][2] + radius + away
        if at_camera or any(
            (x - a) ** 2 + (z - b) ** 2 <= (radius + r) ** 2 for a, b, r in self.taken
        ):
            return False
        self.taken.append((x, z, radius))
        c, s = cos(yaw), sin(yaw)
        for solid in solids:
            own_x, y, own_z = solid.centre
            centre = (x + c * own_x + s * own_z, y, z + c * own_z - s * own_x)
            self.solids.append(solid._replace(centre=centre, yaw=solid.yaw + yaw))
        return True
