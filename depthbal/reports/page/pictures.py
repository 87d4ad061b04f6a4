"""Example images as small pictures inside the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from depthbal.reports.page.numbers import fixed, short
from depthbal.reports.page.view import View
from depthbal.reports.page.vocabulary import REASONS
from depthbal.reports.results import Example

MAX_EXAMPLES = 24
"""Predictions shown in the whole page, so that it does not grow with the data or the runs."""

UNFOLDED = 2
"""Examples of each reason that are seen at once; the others are folded away."""

LONGEST_SIDE = 320
LABEL_COLOURS, ERROR_COLOURS = "turbo", "RdBu_r"
QUALITY = 78
ByteImage = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """One small picture: its data URI, size, and what it shows."""

    source: str
    width: int
    height: int
    caption: str
    description: str


@dataclass(frozen=True)
class ExampleRow:
    """One test image with the pictures of all runs."""

    name: str
    reason: str
    title: str
    pictures: list[Picture]
    folded: bool


@dataclass(frozen=True)
class Scale:
    """A colour bar."""

    source: str
    title: str
    ends: tuple[str, str, str]


@dataclass(frozen=True)
class Gallery:
    """All examples, and their two colour scales."""

    rows: list[ExampleRow]
    scales: list[Scale]
    left_out: int


def gallery(view: View, quality: int = QUALITY) -> Gallery | None:
    """Return examples of all runs, at most `MAX_EXAMPLES` predictions in all, or None.

    Images of all runs stand together; each reason gets its share.

    Args:
        view: of the results.
        quality: of the compressed pictures, 0 to 100.
    """
    by_image = _by_image(view)
    if not by_image:
        return None
    chosen = _chosen(by_image)
    shown = [example for found in chosen for example in found.values()]
    low, high = _label_range(shown)
    reach = _error_reach(shown)
    rows: list[ExampleRow] = []
    for found in chosen:
        before = sum(_reason(found) == row.reason for row in rows)
        rows.append(_row(view, found, low, high, reach, quality, folded=before >= UNFOLDED))
    unit, digits = view.words.unit, view.main.digits
    scales = [
        Scale(
            _bar(LABEL_COLOURS, quality),
            f"{view.words.axis}, truth and predictions",
            (short(round(low, 2)), short(round((low + high) / 2, 2)), short(round(high, 2))),
        ),
        Scale(
            _bar(ERROR_COLOURS, quality),
            f"prediction minus truth ({unit})",
            (f"≤ {fixed(-reach, min(digits, 2))}", "0", f"≥ {fixed(reach, min(digits, 2), True)}"),
        ),
    ]
    return Gallery(rows, scales, len(by_image) - len(chosen))


def _by_image(view: View) -> list[dict[int, Example]]:
    """Group the examples by reason and test image, {run: example}, each run's first ones first."""
    grouped: dict[tuple[str, int], dict[int, Example]] = {}
    place: dict[tuple[str, int], int] = {}
    for run, result in enumerate(view.results):
        seen: dict[str, int] = {}
        for example in result.examples:
            key = (example.reason, example.index)
            grouped.setdefault(key, {})[run] = example
            seen[example.reason] = seen.get(example.reason, -1) + 1
            place[key] = min(place.get(key, seen[example.reason]), seen[example.reason])
    order = {reason: number for number, reason in enumerate(REASONS)}
    keys = sorted(grouped, key=lambda key: (order.get(key[0], len(order)), place[key]))
    return [grouped[key] for key in keys]


def _chosen(by_image: list[dict[int, Example]]) -> list[dict[int, Example]]:
    """Take images of every reason in turn until `MAX_EXAMPLES` predictions are reached."""
    queues: dict[str, list[int]] = {}
    for number, found in enumerate(by_image):
        queues.setdefault(_reason(found), []).append(number)
    taken: list[int] = []
    room = MAX_EXAMPLES
    while any(queues.values()):
        for queue in queues.values():
            if queue and len(by_image[queue[0]]) <= room:
                room -= len(by_image[queue[0]])
                taken.append(queue.pop(0))
            else:
                queue.clear()
    return [by_image[number] for number in sorted(taken)]


def _reason(found: dict[int, Example]) -> str:
    return next(iter(found.values())).reason


def _row(
    view: View,
    found: dict[int, Example],
    low: float,
    high: float,
    reach: float,
    quality: int,
    folded: bool,
) -> ExampleRow:
    one = next(iter(found.values()))
    pictures = [
        _picture(_jpeg(one.image, quality), one.image.shape, "image", f"test image {one.name}"),
        _label_picture(one.truth, one.truth > 0, low, high, "truth", one.name, quality),
    ]
    for run, example in found.items():
        name = view.results[run].name
        who = f"{name}: " if len(view.results) > 1 else ""
        unit, digits = view.words.unit, view.main.digits
        pictures.append(
            _label_picture(
                example.pred,
                np.isfinite(example.pred),
                low,
                high,
                f"{who}prediction, RMSE {fixed(example.rmse, digits)} {unit}",
                one.name,
                quality,
            )
        )
        error = example.pred - example.truth
        scaled = error / (2 * reach) + 0.5
        pixels = _coloured(scaled, (example.truth > 0) & np.isfinite(error), ERROR_COLOURS)
        mean = float(error[example.truth > 0].mean()) if (example.truth > 0).any() else None
        caption = f"{who}error, mean {fixed(mean, digits, True)} {unit}"
        pictures.append(
            _picture(_webp(pixels, quality), pixels.shape, caption, f"signed error on {one.name}")
        )
    title = REASONS.get(one.reason, one.reason)
    if len(found) < len(view.results):
        title += f" of {', '.join(view.results[run].name for run in found)}"
    return ExampleRow(one.name, one.reason, title, pictures, folded)


def _label_picture(
    values: FloatImage,
    known: npt.NDArray[np.bool_],
    low: float,
    high: float,
    caption: str,
    name: str,
    quality: int,
) -> Picture:
    pixels = _coloured((values - low) / (high - low), known, LABEL_COLOURS)
    return _picture(_webp(pixels, quality), pixels.shape, caption, f"{caption} of {name}")


def _picture(source: str, shape: Sequence[int], caption: str, description: str) -> Picture:
    return Picture(source, int(shape[1]), int(shape[0]), caption, description)


def _label_range(examples: Sequence[Example]) -> tuple[float, float]:
    values = np.concatenate([e.truth[e.truth > 0] for e in examples])
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def _error_reach(examples: Sequence[Example]) -> float:
    """Return the error at the ends of the colour scale: 98 of 100 pixels lie within."""
    errors = np.concatenate([np.abs(e.pred - e.truth)[e.truth > 0] for e in examples])
    errors = errors[np.isfinite(errors)]
    reach = float(np.quantile(errors, 0.98)) if errors.size else 1.0
    return float(f"{max(reach, 1e-6):.1g}")


def _coloured(
    scaled: npt.NDArray[np.floating], known: npt.NDArray[np.bool_], colours: str
) -> ByteImage:
    """Return RGBA; what is not known is transparent."""
    pixels = matplotlib.colormaps[colours](np.clip(np.nan_to_num(scaled), 0, 1), bytes=True)
    pixels = np.array(pixels, dtype=np.uint8)
    pixels[~known] = 0
    return pixels


def _bar(colours: str, quality: int) -> str:
    ramp = np.linspace(0, 1, 256)[None].repeat(4, axis=0)
    return _webp(_coloured(ramp, np.ones_like(ramp, dtype=bool), colours), quality)


def _jpeg(pixels: ByteImage, quality: int) -> str:
    swapped = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return _encoded(swapped, "jpeg", cv2.IMWRITE_JPEG_QUALITY, quality)


def _webp(pixels: ByteImage, quality: int) -> str:
    swapped = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
    return _encoded(swapped, "webp", cv2.IMWRITE_WEBP_QUALITY, quality)


def _encoded(pixels: npt.NDArray[np.uint8], kind: str, option: int, quality: int) -> str:
    longest = max(pixels.shape[:2])
    if longest > LONGEST_SIDE:
        scale = LONGEST_SIDE / longest
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(f".{kind}", pixels, [option, quality])
    if not done:
        raise RuntimeError(f"OpenCV could not write an example image as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
