"""Furniture of usual sizes, built from a few solids each.

A piece stands on the floor at its own origin with its back towards +z. Sizes are what shops sell:
they are, with the patterns, what tells a network how far away things are.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from depthbal.data.rooms.scene import SPHERE, Material, Solid, Vector, block, pole

Among = TypeVar("Among")
Piece: TypeAlias = tuple[float, float, list[Solid]]  # extents along x and z in metres, parts


class Dice:
    """Chance, in the forms that rooms need it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def between(self, low: float, high: float) -> float:
        """Return a number drawn uniformly from [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, share: float) -> bool:
        """Return True in the given share of the cases."""
        return float(self.rng.random()) < share

    def pick(self, among: Sequence[Among]) -> Among:
        """Return one of several, each as likely."""
        return among[int(self.rng.random() * len(among))]

    def shade(self, low: float, high: float, colourful: float = 0.25) -> Vector:
        """Return a colour with a brightness in [low, high) and a random tint."""
        level = self.between(low, high)
        r, g, b = (max(level * (1 + colourful * self.between(-1, 1)), 0.01) for _ in range(3))
        return r, g, b

    def wood(self) -> Vector:
        """Return the colour of some wood, light or dark."""
        level = self.between(0.08, 0.5)
        return level, level * self.between(0.55, 0.8), level * self.between(0.25, 0.5)

    def board(self) -> Material:
        """Return some wood, with or without visible boards."""
        return Material("planks" if self.chance(0.3) else "plain", self.wood(), (0.03,) * 3)


def _table(dice: Dice) -> Piece:
    width, depth, wood = dice.between(0.9, 1.8), dice.between(0.6, 0.9), dice.board()
    x, z = width / 2 - 0.05, depth / 2 - 0.05
    parts = [block(0, 0.70, 0, width, 0.04, depth, wood)]
    parts += [block(sx * x, 0, sz * z, 0.06, 0.70, 0.06, wood) for sx in (-1, 1) for sz in (-1, 1)]
    if dice.chance(0.6):
        thing, size = Material("plain", dice.shade(0.02, 0.6, 0.6)), dice.between(0.15, 0.5)
        parts.append(block(dice.between(-x, x) * 0.6, 0.74, 0, size, size * 0.7, 0.15, thing))
    return width, depth, parts


def _chair(dice: Dice) -> Piece:
    stuff = Material("plain", dice.wood() if dice.chance(0.6) else dice.shade(0.05, 0.5))
    seat, back = (0, 0.42, 0, 0.44, 0.04, 0.44), (0, 0.46, 0.2, 0.44, 0.44, 0.03)
    legs = [(x, 0, z, 0.04, 0.42, 0.04) for x in (-0.19, 0.19) for z in (-0.19, 0.19)]
    return 0.46, 0.46, [block(*sizes, stuff) for sizes in (seat, back, *legs)]


def _shelf(dice: Dice) -> Piece:
    width, boards, wood = dice.between(0.6, 1.6), int(dice.between(2, 6.99)), dice.board()
    height, depth = 0.35 * boards + 0.03, 0.3
    parts = [block(x, 0, 0, 0.03, height, depth, wood) for x in (-width / 2, width / 2)]
    parts += [block(0, 0.35 * i, 0, width, 0.03, depth, wood) for i in range(boards + 1)]
    parts.append(block(0, 0, depth / 2 - 0.01, width, height, 0.02, wood))
    full = Material("books", dice.shade(0.1, 0.5, 0.9), dice.shade(0.1, 0.5, 0.9))
    for i in range(boards):
        length = width * dice.between(0.3, 0.97)
        shift = (width - length) / 2 * dice.between(-1, 1)
        parts.append(block(shift, 0.35 * i + 0.02, 0.03, length, 0.28, 0.2, full))
    return width, depth, parts


def _cupboard(dice: Dice) -> Piece:
    width, height = 0.45 * int(dice.between(1, 4.99)), dice.between(0.75, 2.2)
    colour = dice.wood() if dice.chance(0.6) else dice.shade(0.4, 0.8, 0.1)
    doors, depth = Material("panels", colour, (0.02, 0.02, 0.02)), dice.between(0.4, 0.6)
    return width, depth, [block(0, 0, 0, width, height, depth, doors)]


def _kitchen(dice: Dice) -> Piece:
    width = 0.45 * int(dice.between(3, 8.99))
    doors = Material("panels", dice.shade(0.3, 0.8, 0.2), (0.02, 0.02, 0.02))
    top = Material("plain", dice.shade(0.05, 0.5, 0.1))
    tiles = Material("small_tiles", dice.shade(0.5, 0.8, 0.2), (0.35, 0.35, 0.35))
    parts = [
        block(0, 0, 0, width, 0.86, 0.58, doors),
        block(0, 0.86, 0, width, 0.04, 0.62, top),
        block(0, 0.90, 0.30, width, 0.55, 0.02, tiles),
        block(0, 1.45, 0.14, width, 0.65, 0.34, doors),
    ]
    return width, 0.62, parts


def _sofa(dice: Dice) -> Piece:
    width, cloth = dice.between(0.85, 2.3), dice.pick(("plain", "plain", "carpet", "stripes"))
    stuff = Material(cloth, dice.shade(0.04, 0.5, 0.6), dice.shade(0.04, 0.5, 0.6))
    parts = [
        block(0, 0.05, 0, width, 0.37, 0.85, stuff),
        block(0, 0.42, 0.33, width, 0.42, 0.19, stuff),
        block(-width / 2 + 0.09, 0.42, -0.05, 0.18, 0.2, 0.75, stuff),
        block(width / 2 - 0.09, 0.42, -0.05, 0.18, 0.2, 0.75, stuff),
    ]
    if dice.chance(0.5):
        pillow = Material("checker", dice.shade(0.2, 0.7, 0.6), dice.shade(0.2, 0.7, 0.6))
        parts.append(block(dice.between(-0.25, 0.25) * width, 0.42, 0.15, 0.4, 0.36, 0.15, pillow))
    return width, 0.9, parts


def _bed(dice: Dice) -> Piece:
    width, wood = dice.between(0.9, 1.8), dice.board()
    cloth = dice.pick(("plain", "stripes", "checker"))
    sheet = Material(cloth, dice.shade(0.2, 0.8, 0.5), dice.shade(0.3, 0.8, 0.4))
    pillow = Material("plain", dice.shade(0.6, 0.85, 0.05))
    parts = [
        block(0, 0.05, 0, width, 0.25, 2.0, wood),
        block(0, 0.30, -0.02, width * 0.97, 0.22, 1.92, sheet),
        block(0, 0.05, 1.0, width, dice.between(0.8, 1.1), 0.05, wood),
        block(0, 0.52, 0.7, width * 0.7, 0.1, 0.4, pillow),
    ]
    return width, 2.05, parts


def _crates(dice: Dice) -> Piece:
    parts, height = [], 0.0
    card = Material("plain", (0.35, 0.24, 0.13))
    for _ in range(int(dice.between(1, 4.99))):
        size, rise = dice.between(0.3, 0.6), dice.between(0.25, 0.45)
        crate = block(dice.between(-0.05, 0.05), height, 0, size, rise, size * 0.8, card)
        parts.append(crate._replace(yaw=dice.between(-0.3, 0.3)))
        height += rise
    return 0.6, 0.6, parts


def floor_lamp(dice: Dice) -> Piece:
    """Return a lamp on a pole, 1.6 m high; its light is the room's business."""
    metal = Material("plain", dice.shade(0.02, 0.3, 0.05))
    glow = Material("plain", (0.9, 0.8, 0.6), glow=dice.between(0.5, 3.0))
    foot, rod = pole(0, 0.14, 0.03, metal), pole(0.03, 0.015, 1.3, metal)
    return 0.34, 0.34, [foot, rod, pole(1.3, 0.17, 0.28, glow)]


def _plant(dice: Dice) -> Piece:
    pot, level = Material("plain", dice.shade(0.1, 0.6, 0.4)), dice.between(0.05, 0.25)
    leaf = Material("carpet", (level * 0.5, level, level * 0.3), (0.02, 0.08, 0.02))
    size, rise = dice.between(0.2, 0.4), 0.3 + dice.between(0.0, 0.5)
    bush = Solid(SPHERE, (0, rise + size * 0.9, 0), (size, size, size), leaf)
    return 2 * size, 2 * size, [pole(0, 0.16, 0.3, pot), pole(0.3, 0.02, rise, pot), bush]


def _stool(dice: Dice) -> Piece:
    radius, height = dice.between(0.14, 0.24), dice.between(0.3, 0.6)
    stuff = Material("plain", dice.shade(0.05, 0.6, 0.6))
    return 2 * radius, 2 * radius, [pole(0, radius, height, stuff)]


def _column(dice: Dice) -> Piece:
    radius, look = dice.between(0.12, 0.28), dice.pick(("stripes", "small_tiles", "plaster"))
    stone = Material(look, dice.shade(0.3, 0.75, 0.1), dice.shade(0.2, 0.6, 0.1))
    return 2 * radius, 2 * radius, [pole(0, radius, 4.0, stone)]


def _pillar(dice: Dice) -> Piece:
    side, look = dice.between(0.25, 0.5), dice.pick(("bricks", "small_tiles", "plaster"))
    stone = Material(look, dice.shade(0.25, 0.7, 0.2), dice.shade(0.3, 0.6, 0.05))
    return side, side, [block(0, 0, 0, side, 4.0, side, stone)]


Maker: TypeAlias = Callable[[Dice], Piece]
BY_WALL: tuple[Maker, ...] = (
    _table, _shelf, _shelf, _cupboard, _cupboard, _kitchen, _sofa, _bed, _crates, floor_lamp,
    _plant, _chair,
)  # fmt: skip
IN_ROOM: tuple[Maker, ...] = (
    _table, _chair, _chair, _chair, _sofa, _crates, _stool, _plant, _bed,
)  # fmt: skip
POSTS: tuple[Maker, ...] = (_column, _pillar)  # as high as any room
