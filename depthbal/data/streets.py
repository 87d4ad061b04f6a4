"""The embedded outdoor data: streets, suburbs and open country up to 120 m, under the sky."""

from math import cos, exp, pi, radians, sin
from typing import Any, NamedTuple

import numpy as np

from depthbal.data.label_data import Split
from depthbal.data.rooms.builder import Builder, Look, Run
from depthbal.data.rooms.datamodule import RenderedDataModule, RenderedSource
from depthbal.data.rooms.scene import SPHERE, Air, Camera, Pattern, Scene, Solid
from depthbal.errors import ConfigError

DEPTH_RANGE = (2.0, 120.0)  # metres that the simulated sensor measures
_BLUE = (0.95, 0.75, 0.25)  # what a clear sky lacks of the horizon's light at its zenith
_END = 240.0  # metres to which the ground and the rows of houses reach
_LANE, _PAVEMENT = 3.2, 0.12  # width of a lane, height of a kerb

PATTERNS = {
    "plain": Pattern(),
    "lanes": Pattern(_LANE, 1000.0, joint=0.15),
    "asphalt": Pattern(0.7, 0.7, tone=0.2),
    "slabs": Pattern(0.6, 0.6, joint=0.05, tone=0.3),
    "turf": Pattern(0.4, 0.4, tone=0.5, mix=0.5),
    "crop": Pattern(1.5, 1000.0, tone=0.1, check=0.6),
    "casements": Pattern(2.4, 3.0, joint=1.3, tone=1.0),
    "ribbons": Pattern(1.2, 3.4, joint=0.25, tone=0.8),
    "loggias": Pattern(3.6, 2.9, joint=1.0, tone=0.8, mix=0.2),
    "bricks": Pattern(0.5, 0.25, joint=0.04, tone=0.5, shift=0.5),
    "foliage": Pattern(0.3, 0.3, tone=0.9, mix=0.5),
    "planks": Pattern(0.15, 4.0, joint=0.02, tone=0.4),
}
_GREEN, _BROWN = (0.55, 1.0, 0.3), (1.0, 0.75, 0.5)
LOOKS = {
    "road": Look("lanes lanes asphalt", (0.08, 0.2), 0.06, accent=4.0),
    "pavement": Look("slabs slabs asphalt", (0.2, 0.4), 0.1, accent=0.5),
    "grass": Look("turf", (0.1, 0.25), 0.15, _GREEN, accent=0.6),
    "field": Look("turf crop crop", (0.12, 0.4), 0.25, (0.95, 0.9, 0.45), accent=0.6),
    # the joints are the wall, the cells are its windows
    "facade": Look("casements casements ribbons loggias", (0.05, 0.14), 0.3, accent=4.5),
    "wall": Look("bricks plain planks", (0.15, 0.6), 0.3, accent=0.6),
    "roof": Look("plain bricks", (0.06, 0.25), 0.3, (1.0, 0.65, 0.5), accent=0.6),
    "hill": Look("foliage turf", (0.08, 0.2), 0.2, (0.7, 1.0, 0.5), accent=0.6),
    "leaf": Look("foliage", (0.05, 0.22), 0.25, _GREEN, accent=0.4),
    "bark": Look("plain", (0.04, 0.15), 0.15, _BROWN),
    "wood": Look("planks", (0.1, 0.45), 0.2, _BROWN, accent=0.3),
    "metal": Look("plain", (0.1, 0.5), 0.06),
    "paint": Look("plain", (0.03, 0.75), 0.7),
    "cloth": Look("plain", (0.02, 0.6), 0.6),
    "skin": Look("plain", (0.2, 0.5), 0.1, (1.0, 0.75, 0.6)),
    "dark": Look("plain", (0.01, 0.05), 0.05),
}
# sizes as built: what stands in a street tells, by its size in the picture, how far away it is
PIECES = """\
car 1.7 1.9  1.4 1.6  3.9 4.7
    paint -1 1  0.2 0.62  -1 1
    dark -0.88 0.88  0.62 0.95  -0.45 0.7
    paint -0.85 0.85  0.95 1  -0.35 0.6
    dark -0.97 1  0 0.4  0.5 0.8  z
van 1.9 2.1  1.9 2.5  4.8 6.0
    paint -1 1  0.16 1  -0.7 1
    dark -0.95 0.95  0.55 0.9  -0.85 -0.7
    paint -1 1  0.16 0.55  -1 -0.7
    dark -0.97 1  0 0.28  0.5 0.75  z
bus 2.5 2.5  2.9 3.3  9.0 12.0
    paint -1 1  0.1 0.45  -1 1
    dark -0.98 0.98  0.45 0.85  -0.99 0.99
    paint -1 1  0.85 1  -1 1
    dark -0.97 1  0 0.3  0.55 0.7  z
person 0.45 0.6  1.55 1.9  0.3 0.4
    cloth -0.45 0.45  0 0.5  -1 1  pole
    cloth -0.8 0.8  0.48 0.85  -1 1  pole
    skin -0.42 0.42  0.87 1  -1 1  ball
tree 3.0 7.0  5.0 11.0  3.0 7.0
    bark -0.05 0.05  0 0.6  -1 1  pole
    leaf -0.85 0.85  0.5 0.9  -1 1  ball
    leaf -0.9 0.2  0.45 0.8  -0.9 0.3  ball
    leaf -0.1 1  0.4 0.8  -0.4 0.6  ball
fir 2.5 4.5  6.0 15.0  2.5 4.5
    bark -0.06 0.06  0 0.3  -1 1  pole
    leaf -1 1  0.15 0.45  -1 1  pole
    leaf -0.65 0.65  0.45 0.72  -1 1  pole
    leaf -0.3 0.3  0.72 1  -1 1  pole
post 0.9 0.9  5.0 9.0  0.3 0.3
    metal -0.1 0.1  0 1  -1 1  pole
    metal -0.1 1  0.97 1  -0.4 0.4
sign 0.6 0.7  2.1 2.6  0.2 0.2
    metal -0.1 0.1  0 0.9  -1 1  pole
    paint -1 1  0.72 1  -1 -0.7
bin 0.5 0.7  0.9 1.2  0.5 0.7
    paint -1 1  0 1  -1 1
hedge 3.0 9.0  0.9 2.0  0.6 1.0
    leaf -1 1  0 1  -1 1
fence 4.0 9.0  0.9 1.5  0.12 0.12
    wood -1 1  0.1 1  0 1
    wood -1 -0.95  0 1  -1 0  x
"""
_PARKED, _MOVING, _CROSSING = "car car car car van", "car car car van bus", "person"
_BESIDE = "tree person person post sign bin"
_AROUND = "tree tree fir hedge fence post person"


class Plan(NamedTuple):
    """How a kind of scene is drawn, in metres and degrees."""

    lanes: Run  # number of the road's lanes
    setback: Run  # from the road's edge to the houses
    height: Run  # of the houses
    length: Run  # of a house along the road
    gap: Run  # between two houses
    ends: float  # share of roads that end at a house
    beside: Run  # pieces tried along each side of the road
    around: Run  # pieces tried farther away from it
    hills: float  # share of scenes with hills behind


_TOWN = Plan(
    (2.0, 4.9), (2.0, 6.0), (6.0, 24.0), (8.0, 30.0), (-6.0, 6.0), 0.5, (4, 16), (0, 3), 0.2
)
_SUBURB = Plan(
    (2.0, 2.9), (5.0, 14.0), (3.5, 9.0), (7.0, 16.0), (2.0, 22.0), 0.3, (4, 14), (6, 20), 0.4
)
_COUNTRY = Plan(
    (1.0, 2.9), (8.0, 60.0), (3.5, 9.0), (8.0, 25.0), (25.0, 200.0), 0.1, (1, 7), (10, 40), 0.7
)


class Street(Builder):
    """A road with what stands beside it, seen from a car or a pavement."""

    name, version = "streets", "streets 1"
    patterns, looks, table, clear = PATTERNS, LOOKS, PIECES, 3.2

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        super().__init__(rng, size)
        kind = float(rng.random())
        self.plan = _TOWN if kind < 0.45 else _SUBURB if kind < 0.75 else _COUNTRY
        self.camera = Camera(
            *size,
            focal=size[1] * self._between(0.7, 0.8),  # fields of view of 64 to 71 degrees
            position=(0.0, self._between(1.3, 2.2), 0.0),
            yaw=radians(min(max(float(rng.normal(0.0, 12.0)), -35.0), 35.0)),
            pitch=radians(min(max(float(rng.normal(1.5, 3.0)), -6.0), 9.0)),
            roll=radians(self._between(-2.0, 2.0)),
        )

    def scene(self) -> Scene:
        """Return the whole scene; the camera stands on the road or beside it."""
        width = _LANE * int(self._between(*self.plan.lanes))
        left = -width * self._between(0.15, 0.85)
        edges, kerb = (left, left + width), self._between(1.5, 3.5)
        town = self.plan is _TOWN
        ground = self._material("pavement" if town else self._pick("grass field"))
        self._box((-500.0, -1.0, -20.0), (500.0, -0.02, 2 * _END), ground)
        self._box((edges[0], -1.0, -20.0), (edges[1], 0.0, 2 * _END), self._material("road"))
        for sign, edge in zip((-1, 1), edges, strict=True):
            if self.plan is not _COUNTRY:
                pavement = edge + sign * kerb
                look = self._material("pavement")
                self._box((edge, -1.0, -20.0), (pavement, _PAVEMENT, 2 * _END), look)
            self._houses(sign, edge + sign * (kerb + self._between(*self.plan.setback)))
        if self._between(0, 1) < self.plan.ends:
            at = 25.0 * exp(self._between(0.0, 1.7))
            self._house((-60.0, at), (self._between(-10, 20), at + 12), 1.3)
            self._house((self._between(-20, 10), at + 2), (60.0, at + 12), 1.0)
        self._traffic(edges)
        for sign, edge in zip((-1, 1), edges, strict=True):
            for _ in range(int(self._between(*self.plan.beside))):
                off = self._between(0.4, max(kerb - 0.4, 0.8))
                self._stand(_BESIDE, edge + sign * off, self._far())
            for _ in range(int(self._between(*self.plan.around))):
                self._stand(_AROUND, edge + sign * (kerb + self._between(1.0, 50.0)), self._far())
        if self._between(0, 1) < self.plan.hills:
            for _ in range(int(self._between(1, 5.99))):
                self._hill()
        brightness, noise = self._between(0.48, 0.62), self._between(0.004, 0.016)
        ambient, air = self._weather()
        solids, camera = self.solids, self.camera
        return Scene(camera, solids, (), ambient, brightness, noise, DEPTH_RANGE, air)

    def _far(self) -> float:
        """Return how far along the road a thing stands: near ones are more."""
        share = self._between(0.0, 1.0)
        return 3.5 + 130.0 * share * share

    def _houses(self, sign: int, front: float) -> None:
        z = self._between(-15.0, 5.0)
        while z < _END:
            length = self._between(*self.plan.length)
            off = front + sign * self._between(0.0, 1.5)
            self._house((off, z), (off + sign * self._between(8.0, 14.0), z + length), 1.0)
            z += length + max(self._between(*self.plan.gap), 0.0)

    def _house(self, low: Run, high: Run, taller: float) -> None:
        """Build a house with a roof over its walls between two corners (x, z)."""
        (left, right), near, far = sorted((low[0], high[0])), low[1], high[1]
        height = taller * self._between(*self.plan.height)
        walls = self._material(self._pick("facade facade facade wall"))
        self._box((left, -1.0, near), (right, height, far), walls, shadows=True)
        out = self._between(0.05, 0.5)  # over the walls
        eaves, top = (left - out, height, near - out), (right + out, height + 0.4, far + out)
        self._box(eaves, top, self._material("roof"), shadows=True)

    def _traffic(self, edges: Run) -> None:
        for sign, edge in zip((-1, 1), edges, strict=True):
            if self.plan is not _COUNTRY and self._between(0, 1) < 0.7:
                z = self._between(2.0, 30.0)
                while z < 110.0:
                    self._stand(_PARKED, edge - sign * 1.05, z, 0.0)
                    z += self._between(5.2, 30.0)
        for _ in range(int(self._between(0, 5.99))):
            self._stand(_MOVING, self._between(edges[0] + 1.5, edges[1] - 1.5), self._far(), 0.0)
        if self._between(0, 1) < 0.3:
            self._stand(_CROSSING, self._between(*edges), self._far())

    def _stand(self, names: str, x: float, z: float, yaw: float | None = None) -> None:
        """Put one of some pieces at a place, turned anyhow or along the road, either way."""
        name = self._pick(names)
        turn = self._between(-pi, pi) if yaw is None else yaw + pi * (self._between(0, 1) < 0.5)
        self._put(name, self._size(name), x, z, turn)

    def _hill(self) -> None:
        far, turn = self._between(200.0, 900.0), self._between(-0.9, 0.9)
        radius = far * self._between(0.3, 0.9)
        depth = -radius * self._between(0.7, 0.95)
        place = ((far + radius) * sin(turn), depth, (far + radius) * cos(turn))
        look = self._material("hill")
        self.solids.append(Solid(SPHERE, place, (radius,) * 3, look, shadows=False))

    def _weather(self) -> tuple[float, Air]:
        """Return the light from everywhere, and sun and haze: fair or overcast."""
        fair = self._between(0, 1) < 0.65
        turn, rise = self._between(-pi, pi), self._between(0.3, 1.1)
        sun = (cos(rise) * sin(turn), sin(rise), cos(rise) * cos(turn))
        ambient = self._between(0.35, 0.6) if fair else self._between(0.6, 0.9)
        power = self._between(1.0, 2.2) if fair else self._between(0.0, 0.2)
        bright, blue = self._between(0.9, 1.4), self._between(0.7, 1.0) if fair else 0.1
        horizon = (0.95 * bright, bright, 1.05 * bright)
        r, g, b = (light * (1 - blue * fall) for light, fall in zip(horizon, _BLUE, strict=True))
        cover = self._between(0.0, 0.7) if fair else self._between(0.3, 1.0)
        clouds = cover, self._between(0, 2 * pi), self._between(0, 2 * pi)
        haze = 0.003 * exp(self._between(0.0, 1.5))  # a visual range of 1,300 to 290 m
        light = (power, 0.94 * power, 0.82 * power)
        return ambient, Air(sun, light, haze, horizon, (r, g, b), clouds)


class StreetsDataModule(RenderedDataModule):
    """Rendered streets, suburbs and country roads with exact metric depth, 2 to 120 m.

    Depth is measured along the optical axis; far depths are rare: of bins of 1 m the commonest has
    some 450 times as many pixels as the rarest. Sky, and the little that lies beyond 120 m
    otherwise, is infinitely deep: known to be beyond the range. Training and validation have depth,
    sky with it, on every fourth row only, as a lidar's scan lines; the test pictures have it
    everywhere, as every pixel of a drawn world is known.

    Args:
        size: (height, width) of the pictures in pixels.
        sparse: every how many rows one has depth in training and validation; 1 for all.
        depth_size: null takes `size`, so that no scan line is lost.
        **kwargs: as for `RenderedDataModule`.

    Raises:
        ConfigError: values outside their range.

    Example:
        >>> data = StreetsDataModule(n_train=8, n_val=0, n_test=4, size=(24, 48), cache=False)
        >>> data.setup()
        >>> depths = [part.source.load(0)[1] for part in (data.train_set, data.test_set)]
        >>> [int((depth > 0).any(axis=1).sum()) for depth in depths]  # rows with depth or sky
        [6, 24]
    """

    world = Street

    def __init__(
        self,
        *,
        size: tuple[int, int] = (96, 192),
        sparse: int = 4,
        depth_size: tuple[int, int] | None = None,
        depth_range: tuple[float, float] = DEPTH_RANGE,
        bin_width: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            size=size,
            depth_size=depth_size or size,
            depth_range=depth_range,
            bin_width=bin_width,
            **kwargs,
        )
        if not 1 <= sparse <= size[0] or depth_range[1] > DEPTH_RANGE[1]:
            raise ConfigError(
                f"expected sparse of 1 to the height, {size[0]}, got {sparse}, and a depth_range "
                f"that ends at {DEPTH_RANGE[1]:g} m, beyond which all is sky, or before, got "
                f"{depth_range}"
            )
        self.sparse = sparse

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are, and how sparse training is."""
        return super().describe() | {"sparse": self.sparse}

    def _source(self, split: Split) -> RenderedSource:
        source = super()._source(split)
        if split != "test" and self.sparse > 1:
            between = np.arange(self.size[0]) % self.sparse != self.sparse // 2
            source.pairs["depth"][:, between] = 0
            source.key += f"-{self.sparse}"
        source.beyond = True
        return source
