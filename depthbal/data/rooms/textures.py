"""Surface patterns of known metric size: they tell a network how far away a surface is.

Every pattern is a function of the position (u, v) on the surface in metres and of the width of a
pixel's footprint there, over which it is averaged, so that far patterns fade instead of flickering.
It returns the share of the accent colour (0 to 1) and a brightness factor.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Pattern: TypeAlias = Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]

CHECKER = 0.25
"""Side of a checker square, metres."""
STRIPE = 0.10
"""Width of a stripe, metres."""
BRICK = (0.24, 0.08)
"""Length and height of a brick with its joint, metres."""
PLANK = (1.20, 0.14)
"""Length and width of a floor board, metres."""
TILE = 0.30
"""Side of a tile with its joint, metres."""
SMALL_TILE = 0.10
"""Side of a bathroom tile with its joint, metres."""
PANEL = 0.45
"""Width of a cupboard door, metres."""
BOOK = (0.04, 0.35)
"""Width of a book's spine and the height of a shelf, metres."""
FLECK = 0.03
"""Side of a fleck of carpet, metres."""
CLOUD = 0.40
"""Period of the stains on plaster, metres."""


def square_wave(x: Floats, width: Floats) -> Floats:
    """Return the wave that is 1 on [0, 1), -1 on [1, 2), ..., averaged over a width of x.

    Example:
        >>> x, width = np.array([0.5, 1.5, 1.0]), np.array([0.2, 0.2, 1.0])
        >>> square_wave(x, width).round(6).tolist()
        [1.0, -1.0, 0.0]
    """
    low, high = (x - width / 2) / 2, (x + width / 2) / 2
    low -= np.floor(low)
    high -= np.floor(high)
    wave: Floats = (np.abs(low - 0.5) - np.abs(high - 0.5)) * 2 / width
    return wave


def joints(x: Floats, period: float, joint: float, width: Floats) -> Floats:
    """Return the share of joint (a line at every multiple of period) in a footprint at x."""
    away = np.abs(x - np.round(x / period) * period)
    share = np.clip((joint / 2 + width / 2 - away) / width, 0, np.minimum(1, joint / width))
    far = np.clip(2 * width / period - 1, 0, 1)
    averaged: Floats = share + far * (joint / period - share)
    return averaged


def either(one: Floats, other: Floats) -> Floats:
    """Return the share of a footprint under at least one of two crossing sets of lines."""
    return one + other - one * other


def scatter(i: Floats, j: Floats) -> Floats:
    """Return a pseudo-random number in [0, 1) for every pair of whole numbers."""
    mixed = i.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    mixed ^= j.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(13)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _fading(tone: Floats, amount: float, period: float, width: Floats) -> Floats:
    """Return a brightness factor around 1 that is flat where a footprint covers a period."""
    factor: Floats = 1 + amount * (tone - np.float32(0.5)) * np.clip(2 - 2 * width / period, 0, 1)
    return factor


def plain(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return one colour."""
    return np.zeros_like(u), np.ones_like(u)


def checker(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return squares with a side of `CHECKER` metres."""
    width = width / np.float32(CHECKER)
    both = square_wave(u / np.float32(CHECKER), width) * square_wave(v / np.float32(CHECKER), width)
    return (1 - both) / 2, np.ones_like(u)


def stripes(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return upright stripes, each `STRIPE` metres wide."""
    wave = square_wave(u / np.float32(STRIPE), width / np.float32(STRIPE))
    return (1 - wave) / 2, np.ones_like(u)


def bricks(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return rows of bricks, every other row moved by half a brick; joints are 1 cm."""
    length, height = BRICK
    row = np.floor(v / height)
    u = u + (row % 2) * np.float32(length / 2)
    share = either(joints(v, height, 0.01, width), joints(u, length, 0.01, width))
    return share, _fading(scatter(np.floor(u / length), row), 0.5, height, width)


def planks(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return floor boards along u, staggered, each of its own tone."""
    length, broad = PLANK
    row = np.floor(v / broad)
    u = u + np.float32(length) * scatter(row, np.zeros_like(row))
    share = either(joints(v, broad, 0.006, width), joints(u, length, 0.006, width))
    board = _fading(scatter(np.floor(u / length), row), 0.4, broad, width)
    grain = _fading(scatter(np.floor(u / 0.3), np.floor(v / 0.02)), 0.14, 0.02, width)
    return share, board * grain


def tiles(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return square tiles of `TILE` metres; joints are 1 cm."""
    return _squares(u, v, width, TILE, 0.01)


def small_tiles(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return square tiles of `SMALL_TILE` metres; joints are 6 mm."""
    return _squares(u, v, width, SMALL_TILE, 0.006)


def _squares(
    u: Floats, v: Floats, width: Floats, side: float, joint: float
) -> tuple[Floats, Floats]:
    share = either(joints(u, side, joint, width), joints(v, side, joint, width))
    return share, _fading(scatter(np.floor(u / side), np.floor(v / side)), 0.16, side, width)


def panels(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return cupboard doors, `PANEL` metres wide, with 1.2 cm gaps."""
    return joints(u, PANEL, 0.012, width), np.ones_like(u)


def books(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return rows of books, each `BOOK` metres wide, of many colours and heights."""
    broad, shelf = BOOK
    column, row = np.floor(u / broad), np.floor(v / shelf)
    kind = scatter(column, row)
    fade = np.clip(2 - 2 * width / broad, 0, 1)
    above = v - row * np.float32(shelf) > shelf * (0.6 + 0.35 * scatter(row, column))
    tone = np.where(above, 0.25, 0.5 + 1.0 * scatter(column, row + 7))
    mean = 0.225 * 0.25 + 0.775 * 1.0  # 0.6 + 0.35 / 2 of a shelf's height is books
    tone = mean + (tone - mean) * fade
    return 0.5 + (kind - 0.5) * fade, tone.astype(np.float32)


def carpet(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return flecks with a side of `FLECK` metres."""
    fleck = scatter(np.floor(u / FLECK), np.floor(v / FLECK))
    return 0.3 * fleck, _fading(fleck, 0.3, FLECK, width)


def plaster(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return a nearly plain wall with soft stains that repeat every `CLOUD` metres."""
    wave = np.float32(2 * np.pi / CLOUD)
    tone = 1 + np.float32(0.03) * np.sin(wave * u + 2 * np.sin(wave * v / 2)) * np.sin(wave * v)
    return np.zeros_like(u), tone


def picture(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return patches of colour, 8 cm wide, like a poster."""
    i, j = np.floor(u / 0.08), np.floor(v / 0.08)
    return scatter(i, j), 0.6 + 0.8 * scatter(np.floor(i / 2), np.floor(j / 3))


PATTERNS: dict[str, Pattern] = {
    pattern.__name__: pattern
    for pattern in (
        plain, checker, stripes, bricks, planks, tiles, small_tiles, panels, books, carpet,
        plaster, picture,
    )
}  # fmt: skip
"""Every pattern by name."""
NAMES = tuple(PATTERNS)
