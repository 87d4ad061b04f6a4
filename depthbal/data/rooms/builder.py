"""A world of scenes: materials, pieces and places drawn from tables by chance."""

from functools import cache
from itertools import product
from math import cos, hypot, sin
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np

from depthbal.data.label_data import SPLITS, Split
from depthbal.data.pairs import Depth, Image
from depthbal.data.rooms.render import render
from depthbal.data.rooms.scene import BOX, CYLINDER, SPHERE, Material, Pattern, Scene, Solid, Vector

Run: TypeAlias = tuple[float, float]
Part: TypeAlias = tuple[str, int, Vector, Vector]  # look, kind, centre, half


class Look(NamedTuple):
    """How the material of a kind of thing is drawn."""

    patterns: str  # names, each as likely
    brightness: Run
    colourful: float = 0.25  # largest change of one of red, green and blue, either way
    tint: Vector = (1.0, 1.0, 1.0)
    accent: float = 0.0  # the accent colour's brightness, of the colour's; 0 draws another colour
    glow: Run = (0.0, 0.0)


@cache
def pieces(table: str) -> dict[str, tuple[list[Run], list[Part]]]:
    """Return the sizes and the parts of all pieces of a table by name.

    A piece: ranges of width, height and depth; its back is at +z. Its parts: a look, ranges along
    x, y and z as shares of half the width, the height, half the depth; "x" and "xz" stand for
    mirrored boxes too, the radius of a pole or ball is that along x.
    """
    found: dict[str, tuple[list[Run], list[Part]]] = {}
    for line in table.splitlines():
        name, *row = line.split()
        form = row.pop() if row[-1].isalpha() else ""
        numbers = [float(number) for number in row]
        ranges = list(zip(numbers[::2], numbers[1::2], strict=True))
        if not line.startswith(" "):
            _, parts = found[name] = ranges, []
            continue
        x, y, z = ((low + high) / 2 for low, high in ranges)
        a, b, c = ((high - low) / 2 for low, high in ranges)
        kind = {"pole": CYLINDER, "ball": SPHERE}.get(form, BOX)
        mirrored = product((x, -x) if "x" in form else (x,), (z, -z) if "z" in form else (z,))
        parts.extend((name, kind, (x, y, z), (a, b, c)) for x, z in mirrored)
    return found


class Builder:
    """A scene of a world under construction: nothing overlaps, chance decides everything."""

    name: ClassVar[str]
    # another one, in all worlds, whenever the same seed gives other pictures; part of every
    # fingerprint and cache key
    version: ClassVar[int | str]
    patterns: ClassVar[dict[str, Pattern]]
    looks: ClassVar[dict[str, Look]]
    table: ClassVar[str]  # of pieces
    clear: ClassVar[float]  # metres; nothing stands nearer to the camera, which is at x = z = 0

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng = rng
        self.solids: list[Solid] = []
        # circles (x, z, radius) on the floor where nothing else may stand (False) or hang (True)
        self.taken: dict[bool, list[Vector]] = {False: [], True: []}

    @classmethod
    def picture(
        cls, seed: int, split: Split, index: int, size: tuple[int, int]
    ) -> tuple[Image, Depth]:
        """Return one picture: image uint8 (H, W, 3) RGB and z-depth float32 (H, W) in metres.

        It depends on the arguments only: the seed of the whole data set, at least 0, the split, the
        number of the picture in it, and (height, width). (Another CPU or release of NumPy or OpenCV
        may round a pixel's last bit differently.)

        Example:
            >>> from depthbal.data.rooms import room
            >>> image, depth = room(seed=0, split="train", index=0, size=(24, 32))
            >>> image.shape, image.dtype, depth.shape, depth.dtype
            ((24, 32, 3), dtype('uint8'), (24, 32), dtype('float32'))
        """
        key = (SPLITS.index(split), index)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        return render(cls(rng, size).scene(), rng)

    def scene(self) -> Scene:
        """Return the whole scene."""
        raise NotImplementedError

    def _box(self, low: Vector, high: Vector, look: Material, shadows: bool = False) -> None:
        """Add a box between two corners; a room's walls, floors and ceilings cast no shadow."""
        x, y, z = ((one + other) / 2 for one, other in zip(low, high, strict=True))
        a, b, c = (abs(one - other) / 2 for one, other in zip(low, high, strict=True))
        self.solids.append(Solid(BOX, (x, y, z), (a, b, c), look, shadows=shadows))

    def _size(self, name: str) -> Vector:
        width, height, depth = (self._between(*size) for size in pieces(self.table)[name][0])
        return width, height, depth

    def _put(self, name: str, size: Vector, x: float, z: float, yaw: float) -> bool:
        """Put a piece in its place if nothing is in its way; return whether it is there."""
        width, height, depth = size
        hangs = depth < 0.1
        radius = width / 2 if hangs else 0.5 * (width * depth) ** 0.5  # of a square of equal area
        if hypot(x, z) < self.clear + 0.5 * hypot(width, depth) or any(
            hypot(x - a, z - b) < radius + other for a, b, other in self.taken[hangs]
        ):
            return False
        self.taken[hangs].append((x, z, radius))
        parts, c, s = pieces(self.table)[name][1], cos(yaw), sin(yaw)
        looks = {look: self._material(look) for look in dict.fromkeys(part[0] for part in parts)}
        for look, kind, (right, up, back), (a, b, d) in parts:
            right, back = right * width / 2, back * depth / 2
            centre = x + c * right + s * back, up * height, z + c * back - s * right
            a, b, d = a * width / 2, b * height, d * depth / 2
            half = ((a, b, d), (a, b, a), (a, a, a))[kind]
            self.solids.append(Solid(kind, centre, half, looks[look], yaw, not hangs))
        return True

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def _pick(self, names: str) -> str:
        """Return one of the names in a text, each as likely."""
        among = names.split()
        return among[int(self.rng.random() * len(among))]

    def _material(self, name: str) -> Material:
        look = self.looks[name]
        pattern, colour, other = self._pick(look.patterns), self._colour(look), self._colour(look)
        r, g, b = (look.accent * channel for channel in colour)
        accent = (r, g, b) if look.accent else other
        return Material(self.patterns[pattern], colour, accent, self._between(*look.glow))

    def _colour(self, look: Look) -> Vector:
        level, most = self._between(*look.brightness), look.colourful
        r, g, b = (level * tint * (1 + self._between(-most, most)) for tint in look.tint)
        return r, g, b
