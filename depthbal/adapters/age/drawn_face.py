"""Faces of nobody, drawn by numbers, that look as old as they are told to."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthbal.data.pairs import Image

Colour = NDArray[np.float64]

_SCALE = 3  # drawn larger and averaged, so that thin lines become faint ones
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_SKINS = ((244, 208, 177), (224, 172, 132), (198, 134, 94), (141, 85, 54), (96, 60, 42))
_HAIRS = ((30, 24, 20), (74, 48, 30), (120, 78, 40), (180, 140, 80), (140, 60, 30))
_DRAWABLE = (-40.0, 140.0)  # years
_GREY = np.array((225.0, 225.0, 230.0))


class Canvas:
    """A square picture, drawn without jagged edges in coordinates about a centre.

    Args:
        size: pixels of either side.
        background: its colour.
        centre: (x, y) of the origin, as shares of the side.
        scale: length of one unit, likewise.
    """

    def __init__(
        self, size: int, background: Colour, centre: tuple[float, float], scale: float
    ) -> None:
        self.side = size * _SCALE
        self.pixels = np.empty((self.side, self.side, 3), np.uint8)
        self.pixels[:] = background.astype(np.uint8)
        self.centre, self.scale = centre, scale

    def ellipse(
        self,
        at: tuple[float, float],
        axes: tuple[float, float],
        colour: Colour,
        arc: tuple[float, float] = (0, 360),
        width: float | None = None,
    ) -> None:
        """Fill an ellipse or a segment of one; with a `width`, draw the arc as a line."""
        place = [o + self.scale * v for o, v in zip(self.centre, at, strict=True)]
        centre = [round(v * self.side * 2**_SHIFT) for v in place]
        radii = [round(v * self.scale * self.side * 2**_SHIFT) for v in axes]
        thick = -1 if width is None else max(1, round(width * self.scale * self.side))
        ink = tuple(float(v) for v in colour)
        cv2.ellipse(self.pixels, centre, radii, 0, *arc, ink, thick, cv2.LINE_AA, _SHIFT)

    def both(
        self,
        at: tuple[float, float],
        axes: tuple[float, float],
        colour: Colour,
        arc: tuple[float, float] = (0, 360),
        width: float | None = None,
    ) -> None:
        """Draw an ellipse, and its mirror image on the other side of the middle."""
        self.ellipse(at, axes, colour, arc, width)
        self.ellipse((-at[0], at[1]), axes, colour, (180 - arc[1], 180 - arc[0]), width)

    def reduced(self) -> Image:
        """Return the picture at its own size."""
        size = self.side // _SCALE
        reduced: Image = cv2.resize(self.pixels, (size, size), interpolation=cv2.INTER_AREA)
        return reduced


@dataclass(frozen=True)
class Looks:
    """What tells the age of a face: an age in years for each cue."""

    grey: float
    shape: float
    eyes: float
    wrinkles: float
    hairline: float

    @classmethod
    def of(cls, age: float, spread: float, rng: np.random.Generator) -> "Looks":
        """Return cues that scatter about an age with a standard deviation in years."""
        cues = age + spread * rng.standard_normal(5)
        return cls(*np.clip(cues, *_DRAWABLE))


def draw_face(looks: Looks, size: int, rng: np.random.Generator) -> Image:
    """Return a face, uint8 (size, size, 3) RGB, of a random person of these looks.

    Hair turns grey and recedes, the round head of a child grows long, eyes get smaller, wrinkles
    and folds deepen. Skin, hair, background, light, place and size tell nothing.

    Args:
        looks: age in years by each cue.
        size: pixels of either side.
        rng: where everything else comes from.
    """
    light = rng.uniform(0.75, 1.05)
    skin = np.array(_SKINS[rng.integers(len(_SKINS))]) * light
    hair = _hair(looks.grey, rng) * light
    centre = 0.5 + rng.uniform(-0.05, 0.05), 0.53 + rng.uniform(-0.04, 0.04)
    canvas = Canvas(size, rng.uniform(40, 230, 3), centre, rng.uniform(0.4, 0.46))
    length = 0.8 + 0.25 * _from_0_to_1(looks.shape, 8, 14) + 0.001 * looks.shape
    broad = 0.8 - 0.0012 * looks.shape
    _draw_head(canvas, skin, hair, (broad, length), rng)
    _draw_wrinkles(canvas, skin, length, looks.wrinkles)
    _draw_fringe(canvas, hair, (broad, length), looks.hairline)
    _draw_features(canvas, skin, hair, length, looks.eyes, rng)
    noise = rng.normal(0, 4, (size, size, 3))
    face: Image = np.clip(np.rint(canvas.reduced() + noise), 0, 255).astype(np.uint8)
    return face


def _hair(age: float, rng: np.random.Generator) -> Colour:
    grey = _from_0_to_1(age, 50, 15)
    return (1 - grey) * np.array(_HAIRS[rng.integers(len(_HAIRS))]) + grey * _GREY


def _from_0_to_1(age: float, middle: float, width: float) -> float:
    return float(1 / (1 + np.exp(-(age - middle) / width)))


def _draw_head(
    canvas: Canvas,
    skin: Colour,
    hair: Colour,
    head: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Draw shoulders, the hair behind the head, ears and head."""
    broad, length = head
    canvas.ellipse((0, 1.6), (1.1, 0.62), rng.uniform(20, 220, 3))
    canvas.ellipse((0, 0.9), (0.3, 0.4), skin * 0.85)
    long = rng.uniform(0.0, 0.5)
    canvas.ellipse((0, -0.1 + 0.5 * long), (broad + 0.1, length + 0.08), hair)
    canvas.both((-broad, 0.05), (0.1, 0.16), skin * 0.92)
    canvas.ellipse((0, 0), head, skin)


def _draw_fringe(canvas: Canvas, hair: Colour, head: tuple[float, float], age: float) -> None:
    """Draw the hair that falls over the forehead; it recedes with age."""
    broad, length = head
    depth = length * min(0.62 - 0.0045 * age, 0.9)
    if depth > 0:
        half = broad * np.sqrt(1 - (1 - depth / length) ** 2)
        canvas.ellipse((0, depth - length), (half, depth + 0.05), hair, (180, 360))


def _draw_features(
    canvas: Canvas,
    skin: Colour,
    hair: Colour,
    length: float,
    age: float,
    rng: np.random.Generator,
) -> None:
    """Draw eyes, brows, nose and mouth; the eyes tell an age."""
    eye, lid = 0.19 - 0.0009 * age, 0.15 - 0.001 * age
    iris = np.array(((70, 50, 30), (60, 100, 140), (70, 110, 70))[rng.integers(3)], float)
    gaze = rng.uniform(-0.03, 0.03)
    canvas.both((-0.33, -0.02), (eye, lid), np.full(3, 245.0))
    for side in (-0.33, 0.33):
        canvas.ellipse((side + gaze, -0.02), (0.6 * lid, 0.75 * lid), iris)
        canvas.ellipse((side + gaze, -0.02), (0.3 * lid, 0.4 * lid), np.full(3, 10.0))
    canvas.both(
        (-0.33, -0.16), (eye, 0.09), 0.7 * hair, arc=(200, 340), width=rng.uniform(0.03, 0.07)
    )
    canvas.ellipse((0, 0.2 * length), (0.09, 0.1), skin * 0.8, (20, 160), width=0.04)
    lips = skin * 0.6 + np.array((70.0, 10.0, 20.0)) * rng.uniform(0.3, 1.0)
    smile = rng.uniform(-0.05, 0.14)
    start = 0 if smile > 0 else 180
    canvas.ellipse(
        (0, 0.55 * length), (0.25, abs(smile) + 0.01), lips, (start, start + 180), width=0.06
    )


def _draw_wrinkles(canvas: Canvas, skin: Colour, length: float, age: float) -> None:
    """Draw lines on the forehead, beside and below the eyes, and folds down to the mouth."""
    strength = float(np.clip(0.1 + 0.008 * age, 0, 1))
    ink = skin * (1 - 0.55 * strength)
    width = 0.015 + 0.045 * strength
    canvas.both((-0.33, 0.1), (0.16, 0.08), ink, arc=(20, 160), width=width)
    canvas.both((-0.2, 0.42 * length), (0.16, 0.2), ink, arc=(180, 250), width=width)
    canvas.both((-0.62, 0.0), (0.1, 0.1), ink, arc=(-30, 30), width=width)
    for line in range(3):
        canvas.ellipse((0, -0.27 - 0.13 * line), (0.34, 0.05), ink, (200, 340), 0.6 * width)
