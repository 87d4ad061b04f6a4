"""Surface patterns of known metric size: they tell a network how far away a surface is.

Every pattern is a function of the position (u, v) on the surface in metres and of the width of a
pixel's footprint there, over which it is averaged, so that far patterns fade instead of flickering.
It returns the share of the accent colour (0 to 1) and a brightness factor.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np

from depthbal.data.rooms.shapes import Floats

Pattern: TypeAlias = Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]


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


def scatter(i: Floats, j: Floats) -> Floats:
    """Return a pseudo-random number in [0, 1) for every pair of whole numbers."""
    mixed = i.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    mixed ^= j.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(13)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _either(one: Floats, other: Floats) -> Floats:
    """Return the share of a footprint under at least one of two crossing sets of lines."""
    return one + other - one * other


def _fading(tone: Floats, amount: float, period: float, width: Floats) -> Floats:
    """Return a brightness factor around 1 that is flat where a footprint covers a period."""
    factor: Floats = 1 + amount * (tone - np.float32(0.5)) * np.clip(2 - 2 * width / period, 0, 1)
    return factor


def _plain(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    return np.zeros_like(u), np.ones_like(u)


def _checker(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    side = np.float32(0.25)
    width = width / side
    both = square_wave(u / side, width) * square_wave(v / side, width)
    return (1 - both) / 2, np.ones_like(u)


def _stripes(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return upright stripes, each 10 cm wide."""
    wave = square_wave(u / np.float32(0.10), width / np.float32(0.10))
    return (1 - wave) / 2, np.ones_like(u)


def _bricks(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return rows of bricks, every other row moved by half a brick; joints are 1 cm."""
    length, height = 0.24, 0.08
    row = np.floor(v / height)
    u = u + (row % 2) * np.float32(length / 2)
    share = _either(joints(v, height, 0.01, width), joints(u, length, 0.01, width))
    return share, _fading(scatter(np.floor(u / length), row), 0.5, height, width)


def _planks(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return floor boards along u, staggered, each of its own tone."""
    length, broad = 1.20, 0.14
    row = np.floor(v / broad)
    u = u + np.float32(length) * scatter(row, np.zeros_like(row))
    share = _either(joints(v, broad, 0.006, width), joints(u, length, 0.006, width))
    board = _fading(scatter(np.floor(u / length), row), 0.4, broad, width)
    grain = _fading(scatter(np.floor(u / 0.3), np.floor(v / 0.02)), 0.14, 0.02, width)
    return share, board * grain


def _tiles(
    u: Floats, v: Floats, width: Floats, side: float = 0.30, joint: float = 0.01
) -> tuple[Floats, Floats]:
    share = _either(joints(u, side, joint, width), joints(v, side, joint, width))
    return share, _fading(scatter(np.floor(u / side), np.floor(v / side)), 0.16, side, width)


def _panels(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return cupboard doors, 45 cm wide, with 1.2 cm gaps."""
    return joints(u, 0.45, 0.012, width), np.ones_like(u)


def _books(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return rows of books of many colours and heights."""
    broad, shelf = 0.04, 0.35
    column, row = np.floor(u / broad), np.floor(v / shelf)
    kind = scatter(column, row)
    fade = np.clip(2 - 2 * width / broad, 0, 1)
    above = v - row * np.float32(shelf) > shelf * (0.6 + 0.35 * scatter(row, column))
    tone = np.where(above, 0.25, 0.5 + 1.0 * scatter(column, row + 7))
    mean = 0.225 * 0.25 + 0.775 * 1.0  # 0.6 + 0.35 / 2 of a shelf's height is books
    tone = mean + (tone - mean) * fade
    return 0.5 + (kind - 0.5) * fade, tone.astype(np.float32)


def _carpet(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    fleck = scatter(np.floor(u / 0.03), np.floor(v / 0.03))
    return 0.3 * fleck, _fading(fleck, 0.3, 0.03, width)


def _plaster(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return a nearly plain wall with soft stains that repeat every 40 cm."""
    wave = np.float32(2 * np.pi / 0.40)
    tone = 1 + np.float32(0.03) * np.sin(wave * u + 2 * np.sin(wave * v / 2)) * np.sin(wave * v)
    return np.zeros_like(u), tone


def _picture(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return patches of colour, 8 cm wide, like a poster."""
    i, j = np.floor(u / 0.08), np.floor(v / 0.08)
    return scatter(i, j), 0.6 + 0.8 * scatter(np.floor(i / 2), np.floor(j / 3))


PATTERNS: dict[str, Pattern] = {
    "plain": _plain,
    "checker": _checker,
    "stripes": _stripes,
    "bricks": _bricks,
    "planks": _planks,
    "tiles": _tiles,
    "small_tiles": partial(_tiles, side=0.10, joint=0.006),
    "panels": _panels,
    "books": _books,
    "carpet": _carpet,
    "plaster": _plaster,
    "picture": _picture,
}
