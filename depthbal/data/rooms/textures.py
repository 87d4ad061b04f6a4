"""Surface patterns of known metric size: they tell a network how far away a surface is.

Every pattern is a function of the position (u, v) on the surface in metres and of the width of a
pixel's footprint there, over which it is averaged, so that far patterns fade instead of flickering.
It returns the share of the accent colour (0 to 1) and a brightness factor.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from depthbal.data.rooms.scene import Floats

Look: TypeAlias = tuple[Floats | float, Floats | float]


def _checker(u: Floats, v: Floats, width: Floats) -> Look:
    u, v, width = (length / np.float32(0.25) for length in (u, v, width))
    return (1 - _wave(u, width) * _wave(v, width)) / 2, 1.0


def _stripes(u: Floats, v: Floats, width: Floats) -> Look:
    """Return upright stripes, each 10 cm wide."""
    return (1 - _wave(u / np.float32(0.10), width / np.float32(0.10))) / 2, 1.0


def _grid(
    u: Floats, v: Floats, width: Floats, size: tuple[float, float], joint: float, tone: float
) -> Look:
    """Return bricks, boards or tiles of a size, each of its own tone, between joints."""
    column, row = np.floor(u / size[0]), np.floor(v / size[1])
    one, other = _joints(v, size[1], joint, width), _joints(u, size[0], joint, width)
    return one + other - one * other, _fading(_scatter(column, row), tone, size[1], width)


def _bricks(u: Floats, v: Floats, width: Floats) -> Look:
    """Return rows of bricks, every other row moved by half a brick."""
    u = u + (np.floor(v / 0.08) % 2) * np.float32(0.12)
    return _grid(u, v, width, (0.24, 0.08), joint=0.01, tone=0.5)


def _planks(u: Floats, v: Floats, width: Floats) -> Look:
    """Return floor boards along u, staggered, with a grain."""
    row = np.floor(v / 0.14)
    u = u + np.float32(1.20) * _scatter(row, np.zeros_like(row))
    share, tone = _grid(u, v, width, (1.20, 0.14), joint=0.006, tone=0.4)
    grain = _scatter(np.floor(u / 0.3), np.floor(v / 0.02))
    return share, tone * _fading(grain, 0.14, 0.02, width)


def _panels(u: Floats, v: Floats, width: Floats) -> Look:
    """Return cupboard doors, 45 cm wide, with 1.2 cm gaps."""
    return _joints(u, 0.45, 0.012, width), 1.0


def _books(u: Floats, v: Floats, width: Floats) -> Look:
    """Return rows of books of many colours and heights."""
    broad, shelf = 0.04, 0.35
    column, row = np.floor(u / broad), np.floor(v / shelf)
    fade = np.clip(2 - 2 * width / broad, 0, 1)
    above = v - row * np.float32(shelf) > shelf * (0.6 + 0.35 * _scatter(row, column))
    tone = np.where(above, 0.25, 0.5 + _scatter(column, row + 7))
    mean = 0.225 * 0.25 + 0.775 * 1.0  # 0.6 + 0.35 / 2 of a shelf's height is books
    return 0.5 + (_scatter(column, row) - 0.5) * fade, mean + (tone - mean) * fade


def _carpet(u: Floats, v: Floats, width: Floats) -> Look:
    fleck = _scatter(np.floor(u / 0.03), np.floor(v / 0.03))
    return 0.3 * fleck, _fading(fleck, 0.3, 0.03, width)


def _plaster(u: Floats, v: Floats, width: Floats) -> Look:
    """Return a nearly plain wall with soft stains that repeat every 40 cm."""
    wave = np.float32(2 * np.pi / 0.40)
    stain = np.sin(wave * u + 2 * np.sin(wave * v / 2)) * np.sin(wave * v)
    return 0.0, 1 + np.float32(0.03) * stain


def _picture(u: Floats, v: Floats, width: Floats) -> Look:
    """Return patches of colour, 8 cm wide, like a poster."""
    i, j = np.floor(u / 0.08), np.floor(v / 0.08)
    return _scatter(i, j), 0.6 + 0.8 * _scatter(np.floor(i / 2), np.floor(j / 3))


PATTERNS: dict[str, Callable[..., Look]] = {
    "plain": lambda u, v, width: (0.0, 1.0),
    "checker": _checker,
    "stripes": _stripes,
    "bricks": _bricks,
    "planks": _planks,
    "tiles": partial(_grid, size=(0.30, 0.30), joint=0.01, tone=0.16),
    "small_tiles": partial(_grid, size=(0.10, 0.10), joint=0.006, tone=0.16),
    "panels": _panels,
    "books": _books,
    "carpet": _carpet,
    "plaster": _plaster,
    "picture": _picture,
}


def _wave(x: Floats, width: Floats) -> Floats:
    """Return the wave that is 1 on [0, 1), -1 on [1, 2), ..., averaged over a width of x."""
    low, high = (x - width / 2) / 2, (x + width / 2) / 2
    low, high = (np.abs(edge - np.floor(edge) - 0.5) for edge in (low, high))
    return (low - high) * 2 / width


def _joints(x: Floats, period: float, joint: float, width: Floats) -> Floats:
    """Return the share of joint (a line at every multiple of period) in a footprint at x."""
    away = np.abs(x - np.round(x / period) * period)
    share = np.clip((joint / 2 + width / 2 - away) / width, 0, np.minimum(1, joint / width))
    far = np.clip(2 * width / period - 1, 0, 1)
    return share + far * (joint / period - share)


def _scatter(i: Floats, j: Floats) -> Floats:
    """Return a pseudo-random number in [0, 1) for every pair of whole numbers."""
    mixed = i.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    mixed ^= j.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(13)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _fading(tone: Floats, amount: float, period: float, width: Floats) -> Floats:
    """Return a brightness factor around 1 that is flat where a footprint covers a period."""
    return 1 + amount * (tone - np.float32(0.5)) * np.clip(2 - 2 * width / period, 0, 1)
