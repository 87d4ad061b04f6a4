"""Furniture of usual sizes, built from a few solids each.

A piece stands on the floor at its own origin with its back towards +z. Sizes are what shops sell:
they are, with the patterns, what tells a network how far away things are.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from depthbal.data.rooms.shapes import SPHERE, Solid, block, pole
from depthbal.data.rooms.stage import Stage


class Piece(NamedTuple):
    """A piece of furniture in its own frame: its extents along x and z in metres, its parts."""

    width: float
    depth: float
    solids: list[Solid]


Maker: TypeAlias = Callable[[Stage], Piece]


def _table(stage: Stage) -> Piece:
    width, depth, wood = stage.between(0.9, 1.8), stage.between(0.6, 0.9), _wood(stage)
    x, z = width / 2 - 0.05, depth / 2 - 0.05
    parts = [block(0, 0.70, 0, width, 0.04, depth, wood)]
    parts += [block(sx * x, 0, sz * z, 0.06, 0.70, 0.06, wood) for sx in (-1, 1) for sz in (-1, 1)]
    if stage.chance(0.6):
        thing = stage.material("plain", stage.shade(0.02, 0.6, 0.6))
        size = stage.between(0.15, 0.5)
        parts.append(block(stage.between(-x, x) * 0.6, 0.74, 0, size, size * 0.7, 0.15, thing))
    return Piece(width, depth, parts)


def _chair(stage: Stage) -> Piece:
    stuff = stage.material("plain", stage.wood() if stage.chance(0.6) else stage.shade(0.05, 0.5))
    parts = [
        block(0, 0.42, 0, 0.44, 0.04, 0.44, stuff),
        block(0, 0.46, 0.2, 0.44, 0.44, 0.03, stuff),
    ]
    parts += [block(x, 0, z, 0.04, 0.42, 0.04, stuff) for x in (-0.19, 0.19) for z in (-0.19, 0.19)]
    return Piece(0.46, 0.46, parts)


def _shelf(stage: Stage) -> Piece:
    width, boards, wood = stage.between(0.6, 1.6), int(stage.between(2, 6.99)), _wood(stage)
    height, depth = 0.35 * boards + 0.03, 0.3
    parts = [block(x, 0, 0, 0.03, height, depth, wood) for x in (-width / 2, width / 2)]
    parts += [block(0, 0.35 * i, 0, width, 0.03, depth, wood) for i in range(boards + 1)]
    parts.append(block(0, 0, depth / 2 - 0.01, width, height, 0.02, wood))
    full = stage.material("books", stage.shade(0.1, 0.5, 0.9), stage.shade(0.1, 0.5, 0.9))
    for i in range(boards):
        length = width * stage.between(0.3, 0.97)
        shift = (width - length) / 2 * stage.between(-1, 1)
        parts.append(block(shift, 0.35 * i + 0.02, 0.03, length, 0.28, 0.2, full))
    return Piece(width, depth, parts)


def _cupboard(stage: Stage) -> Piece:
    doors = int(stage.between(1, 4.99))
    height = stage.between(0.75, 2.2)
    colour = stage.wood() if stage.chance(0.6) else stage.shade(0.4, 0.8, 0.1)
    look = stage.material("panels", colour, (0.02, 0.02, 0.02))
    width, depth = 0.45 * doors, stage.between(0.4, 0.6)
    return Piece(width, depth, [block(0, 0, 0, width, height, depth, look)])


def _kitchen(stage: Stage) -> Piece:
    width = 0.45 * int(stage.between(3, 8.99))
    doors = stage.material("panels", stage.shade(0.3, 0.8, 0.2), (0.02, 0.02, 0.02))
    top = stage.material("plain", stage.shade(0.05, 0.5, 0.1))
    tiles = stage.material("small_tiles", stage.shade(0.5, 0.8, 0.2), (0.35, 0.35, 0.35))
    parts = [
        block(0, 0, 0, width, 0.86, 0.58, doors),
        block(0, 0.86, 0, width, 0.04, 0.62, top),
        block(0, 0.90, 0.30, width, 0.55, 0.02, tiles),
        block(0, 1.45, 0.14, width, 0.65, 0.34, doors),
    ]
    return Piece(width, 0.62, parts)


def _sofa(stage: Stage) -> Piece:
    width = stage.between(0.85, 2.3)
    cloth = stage.choose("plain plain carpet stripes")
    stuff = stage.material(cloth, stage.shade(0.04, 0.5, 0.6), stage.shade(0.04, 0.5, 0.6))
    parts = [
        block(0, 0.05, 0, width, 0.37, 0.85, stuff),
        block(0, 0.42, 0.33, width, 0.42, 0.19, stuff),
        block(-width / 2 + 0.09, 0.42, -0.05, 0.18, 0.2, 0.75, stuff),
        block(width / 2 - 0.09, 0.42, -0.05, 0.18, 0.2, 0.75, stuff),
    ]
    if stage.chance(0.5):
        pillow = stage.material("checker", stage.shade(0.2, 0.7, 0.6), stage.shade(0.2, 0.7, 0.6))
        parts.append(block(stage.between(-0.25, 0.25) * width, 0.42, 0.15, 0.4, 0.36, 0.15, pillow))
    return Piece(width, 0.9, parts)


def _bed(stage: Stage) -> Piece:
    width, wood = stage.between(0.9, 1.8), _wood(stage)
    cloth = stage.choose("plain stripes checker")
    sheet = stage.material(cloth, stage.shade(0.2, 0.8, 0.5), stage.shade(0.3, 0.8, 0.4))
    pillow = stage.material("plain", stage.shade(0.6, 0.85, 0.05))
    parts = [
        block(0, 0.05, 0, width, 0.25, 2.0, wood),
        block(0, 0.30, -0.02, width * 0.97, 0.22, 1.92, sheet),
        block(0, 0.05, 1.0, width, stage.between(0.8, 1.1), 0.05, wood),
        block(0, 0.52, 0.7, width * 0.7, 0.1, 0.4, pillow),
    ]
    return Piece(width, 2.05, parts)


def _crates(stage: Stage) -> Piece:
    parts, height = [], 0.0
    card = stage.material("plain", (0.35, 0.24, 0.13))
    for _ in range(int(stage.between(1, 4.99))):
        size, rise = stage.between(0.3, 0.6), stage.between(0.25, 0.45)
        crate = block(stage.between(-0.05, 0.05), height, 0, size, rise, size * 0.8, card)
        parts.append(crate._replace(yaw=stage.between(-0.3, 0.3)))
        height += rise
    return Piece(0.6, 0.6, parts)


def floor_lamp(stage: Stage) -> Piece:
    """Return a lamp on a pole, 1.6 m high; its light is the room's business."""
    metal = stage.material("plain", stage.shade(0.02, 0.3, 0.05))
    glow = stage.material("plain", (0.9, 0.8, 0.6), glow=stage.between(0.5, 3.0))
    foot, rod = pole(0, 0, 0, 0.14, 0.03, metal), pole(0, 0.03, 0, 0.015, 1.3, metal)
    return Piece(0.34, 0.34, [foot, rod, pole(0, 1.3, 0, 0.17, 0.28, glow)])


def _plant(stage: Stage) -> Piece:
    pot = stage.material("plain", stage.shade(0.1, 0.6, 0.4))
    level = stage.between(0.05, 0.25)
    leaf = stage.material("carpet", (level * 0.5, level, level * 0.3), (0.02, 0.08, 0.02))
    size = stage.between(0.2, 0.4)
    rise = 0.3 + stage.between(0.0, 0.5)
    bush = Solid(SPHERE, (0, rise + size * 0.9, 0), (size, size, size), leaf)
    trunk = pole(0, 0.3, 0, 0.02, rise, pot)
    return Piece(2 * size, 2 * size, [pole(0, 0, 0, 0.16, 0.3, pot), trunk, bush])


def pillar(stage: Stage) -> Piece:
    """Return a square pillar as high as any room."""
    side = stage.between(0.25, 0.5)
    look = stage.choose("bricks small_tiles plaster")
    stone = stage.material(look, stage.shade(0.25, 0.7, 0.2), stage.shade(0.3, 0.6, 0.05))
    return Piece(side, side, [block(0, 0, 0, side, 4.0, side, stone)])


def column(stage: Stage) -> Piece:
    """Return a round column as high as any room."""
    radius = stage.between(0.12, 0.28)
    look = stage.choose("stripes small_tiles plaster")
    stone = stage.material(look, stage.shade(0.3, 0.75, 0.1), stage.shade(0.2, 0.6, 0.1))
    return Piece(2 * radius, 2 * radius, [pole(0, 0, 0, radius, 4.0, stone)])


def _stool(stage: Stage) -> Piece:
    radius, height = stage.between(0.14, 0.24), stage.between(0.3, 0.6)
    stuff = stage.material("plain", stage.shade(0.05, 0.6, 0.6))
    return Piece(2 * radius, 2 * radius, [pole(0, 0, 0, radius, height, stuff)])


def _wood(stage: Stage) -> int:
    return stage.material("planks" if stage.chance(0.3) else "plain", stage.wood(), (0.03,) * 3)


BY_WALL: tuple[Maker, ...] = (
    _table, _shelf, _shelf, _cupboard, _cupboard, _kitchen, _sofa, _bed, _crates, floor_lamp,
    _plant, _chair,
)  # fmt: skip
IN_ROOM: tuple[Maker, ...] = (
    _table, _chair, _chair, _chair, _sofa, _crates, _stool, _plant, _bed,
)  # fmt: skip
