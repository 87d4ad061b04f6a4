"""Rooms with walls, doorways, windows and lamps; all rooms share one floor level."""

from dataclasses import dataclass
from math import pi
from typing import Literal, NamedTuple, TypeAlias

from depthbal.data.rooms.stage import Light, Stage

Side: TypeAlias = Literal["front", "right", "left", "back"]
Run: TypeAlias = tuple[float, float]
# how furniture turns to have its back to each side
YAW: dict[Side, float] = {"front": 0.0, "right": pi / 2, "left": -pi / 2, "back": pi}
# the wall that two rooms share has another name in each
OPPOSITE: dict[Side, Side] = {"front": "back", "back": "front", "left": "right", "right": "left"}
WALL = 0.12  # thickness of a wall, metres


@dataclass(frozen=True)
class Room:
    """The free space between four walls, a floor at y = 0 and a ceiling, in metres."""

    left: float
    right: float
    back: float
    front: float
    height: float

    def run(self, side: Side) -> Run:
        """Return where a wall begins and ends: x for front and back, z for left and right."""
        across = side in ("front", "back")
        return (self.left, self.right) if across else (self.back, self.front)

    def on_wall(self, side: Side, along: float, off: float) -> tuple[float, float]:
        """Return the floor position (x, z) at `along` on a wall, `off` metres in front of it."""
        if side in ("front", "back"):
            return along, self.front - off if side == "front" else self.back + off
        return self.right - off if side == "right" else self.left + off, along

    def neighbour(self, side: Side, low: float, high: float, far: float) -> "Room":
        """Return a room behind a wall, from low to high along it and far metres deep."""
        if side == "front":
            return Room(low, high, self.front + WALL, self.front + WALL + far, self.height)
        if side == "back":
            return Room(low, high, self.back - WALL - far, self.back - WALL, self.height)
        if side == "right":
            return Room(self.right + WALL, self.right + WALL + far, low, high, self.height)
        return Room(self.left - WALL - far, self.left - WALL, low, high, self.height)


class Opening(NamedTuple):
    """A doorway in a wall from `start` to `end` metres along it, as high as `top`."""

    start: float
    end: float
    top: float


def build(stage: Stage, room: Room, openings: dict[Side, Opening], skip: Side | None) -> None:
    """Put floor, ceiling and walls of a room on stage; `skip` is a wall that is already there."""
    wall, floor, ceiling = _wall_look(stage), _floor_look(stage), _ceiling_look(stage)
    x, z = (room.left + room.right) / 2, (room.back + room.front) / 2
    width, length = room.right - room.left + 2 * WALL, room.front - room.back + 2 * WALL
    stage.wall(x, -0.1, z, width, 0.1, length, floor)
    stage.wall(x, room.height, z, width, 0.1, length, ceiling)
    accent = _wall_look(stage) if stage.chance(0.3) else wall
    for side in YAW:
        if side != skip:
            _wall(stage, room, side, openings.get(side), accent if side == "front" else wall)


def _wall(stage: Stage, room: Room, side: Side, opening: Opening | None, look: int) -> None:
    """Put a wall and its skirting board on stage, with a hole where the doorway is."""
    start, end = room.run(side)
    pieces = [(start - WALL, end + WALL, 0.0)]
    if opening is not None:
        pieces = [(start - WALL, opening.start, 0.0), (opening.end, end + WALL, 0.0), opening]
    skirting = stage.material("plain", stage.wood() if stage.chance(0.5) else (0.7, 0.7, 0.68))
    for low, high, bottom in pieces:
        if high - low > 0.01:
            _on_wall(stage, room, side, (low, high), (bottom, room.height), (-WALL, 0.0), look)
            if bottom == 0.0:
                _on_wall(stage, room, side, (low, high), (0.0, 0.08), (0.0, 0.015), skirting)
    if opening is not None:
        for at in (opening.start, opening.end):
            run = (at - 0.05, at + 0.05)
            _on_wall(stage, room, side, run, (0.0, opening.top), (-WALL - 0.01, 0.02), skirting)


def _on_wall(
    stage: Stage, room: Room, side: Side, run: Run, rise: Run, off: Run, look: int
) -> None:
    """Put a box on a wall: along it, up it, and off it (negative: inside the wall), in metres."""
    x, z = room.on_wall(side, (run[0] + run[1]) / 2, (off[0] + off[1]) / 2)
    width, depth = run[1] - run[0], off[1] - off[0]
    if side in ("left", "right"):
        width, depth = depth, width
    stage.wall(x, rise[0], z, width, rise[1] - rise[0], depth, look)


def decorate(stage: Stage, room: Room, side: Side, opening: Opening | None) -> None:
    """Hang a window, a picture or a closed door on a wall that has room for it."""
    start, end = room.run(side)
    kind = stage.choose("window window picture picture door nothing")
    width = {"window": stage.between(0.7, 2.0), "picture": stage.between(0.4, 1.1)}.get(kind, 0.85)
    at = stage.between(start + 0.2, max(end - 0.2 - width, start + 0.2))
    blocked = opening is not None and at < opening.end + 0.1 and at + width > opening.start - 0.1
    if kind == "nothing" or blocked or at + width > end - 0.1:
        return
    low, high = {"window": (0.9, 2.1), "door": (0.0, 2.0)}.get(kind, (1.2, 1.2 + width * 0.75))
    high = min(high, room.height - 0.1)
    if kind == "window":
        look = stage.material("plain", (0.8, 0.9, 1.0), glow=stage.between(0.8, 3.5))
    elif kind == "door":
        look = stage.material("plain", stage.wood() if stage.chance(0.5) else (0.65, 0.65, 0.62))
    else:
        look = stage.material("picture", stage.shade(0.1, 0.6, 0.8), stage.shade(0.1, 0.6, 0.8))
    frame = stage.material("plain", stage.wood() if stage.chance(0.4) else (0.75, 0.75, 0.75))
    edge = 0.04
    _on_wall(stage, room, side, (at, at + width), (low, high), (0.0, 0.02), frame)
    inner = (at + edge, at + width - edge)
    _on_wall(stage, room, side, inner, (low + edge * (low > 0), high - edge), (0.0, 0.025), look)
    if kind == "window":
        middle = at + width / 2
        _on_wall(stage, room, side, (middle - 0.02, middle + 0.02), (low, high), (0.0, 0.04), frame)


def light_up(stage: Stage, room: Room, lamps: int, strength: float = 1.0) -> None:
    """Hang lamps under a room's ceiling; each is seen as a bright panel."""
    area = (room.right - room.left) * (room.front - room.back)
    for _ in range(lamps):
        x = stage.between(room.left + 0.2 * (room.right - room.left), room.right - 0.3)
        z = stage.between(room.back + 0.4 * (room.front - room.back), room.front - 0.4)
        tint = stage.between(0.0, 0.35)
        power = strength * stage.between(0.5, 1.5) * (0.5 + 0.25 * area) / lamps
        glow = stage.material("plain", (1.0, 1.0 - tint / 3, 1.0 - tint), glow=4.0)
        side = stage.between(0.15, 0.3)
        stage.wall(x, room.height - 0.06, z, 2 * side, 0.05, side, glow)
        colour = (power, power * (1 - tint / 3), power * (1 - tint))
        stage.lights.append(Light((x, room.height - 0.12, z), colour))


def _wall_look(stage: Stage) -> int:
    pattern = stage.choose("plaster bricks stripes stripes tiles small_tiles checker checker")
    if pattern == "bricks":
        return stage.material(pattern, (stage.between(0.25, 0.5), 0.16, 0.1), (0.5, 0.48, 0.45))
    r, g, b = stage.shade(0.35, 0.8, 0.3)
    darker = stage.between(0.5, 0.8)
    return stage.material(pattern, (r, g, b), (r * darker, g * darker, b * darker))


def _floor_look(stage: Stage) -> int:
    pattern = stage.choose("planks planks planks tiles tiles checker carpet")
    if pattern == "planks":
        return stage.material(pattern, stage.wood(), (0.02, 0.015, 0.01))
    if pattern == "checker":
        return stage.material(pattern, stage.shade(0.4, 0.7, 0.1), stage.shade(0.04, 0.2, 0.2))
    return stage.material(pattern, stage.shade(0.1, 0.5, 0.3), stage.shade(0.05, 0.5, 0.2))


def _ceiling_look(stage: Stage) -> int:
    pattern = stage.choose("plain plain plaster tiles")
    return stage.material(pattern, stage.shade(0.6, 0.85, 0.05), (0.4, 0.4, 0.4))
