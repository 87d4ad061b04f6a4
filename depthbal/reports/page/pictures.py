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
class ColourBar:
    """A colour bar with the values at its ends and in its middle."""

    source: str
    title: str
    ends: tuple[str, str, str]


@dataclass(frozen=True)
class Gallery:
    """All examples, and their two colour bars."""

    rows: list[ExampleRow]
    bars: list[ColourBar]
    left_out: int


@dataclass(frozen=True)
class Scales:
    """The colour scales of all examples: labels from low to high, errors from -reach to reach."""

    low: float
    high: float
    reach: float


@dataclass(frozen=True)
class Shown:
    """One test image: {run: example}, and {reason: runs}."""

    runs: dict[int, Example]
    reasons: dict[str, list[int]]

    @property
    def reason(self) -> str:
        """The first of the reasons, in the order of the page."""
        known = [reason for reason in REASONS if reason in self.reasons]
        return known[0] if known else next(iter(self.reasons))


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
    scales = _scales([example for shown in chosen for example in shown.runs.values()])
    rows: list[ExampleRow] = []
    for shown in chosen:
        before = sum(shown.reason == row.reason for row in rows)
        rows.append(_row(view, shown, scales, quality, folded=before >= UNFOLDED))
    return Gallery(rows, _bars(view, scales, quality), len(by_image) - len(chosen))


def _bars(view: View, scales: Scales, quality: int) -> list[ColourBar]:
    digits = min(view.main.digits, 2)
    middle = (scales.low + scales.high) / 2
    return [
        ColourBar(
            _ramp(LABEL_COLOURS, quality),
            f"{view.words.axis}, truth and predictions",
            (short(round(scales.low, 2)), short(round(middle, 2)), short(round(scales.high, 2))),
        ),
        ColourBar(
            _ramp(ERROR_COLOURS, quality),
            f"prediction minus truth ({view.words.unit})",
            (f"≤ {fixed(-scales.reach, digits)}", "0", f"≥ {fixed(scales.reach, digits, True)}"),
        ),
    ]


def _by_image(view: View) -> list[Shown]:
    """Collect the runs and reasons of every test image; those of most runs first."""
    found: dict[int, Shown] = {}
    place: dict[int, int] = {}
    for run, result in enumerate(view.results):
        seen: dict[str, int] = {}
        for example in result.examples:
            shown = found.setdefault(example.index, Shown({}, {}))
            shown.runs[run] = example
            shown.reasons.setdefault(example.reason, []).append(run)
            seen[example.reason] = seen.get(example.reason, -1) + 1
            place[example.index] = min(place.get(example.index, len(found)), seen[example.reason])
    order = {reason: number for number, reason in enumerate(REASONS)}

    def rank(index: int) -> tuple[int, int, int]:
        shown = found[index]
        return order.get(shown.reason, len(order)), -len(shown.runs), place[index]

    return [found[index] for index in sorted(found, key=rank)]


def _chosen(by_image: list[Shown]) -> list[Shown]:
    """Take images of every reason in turn until `MAX_EXAMPLES` predictions are reached."""
    queues: dict[str, list[int]] = {}
    for number, shown in enumerate(by_image):
        queues.setdefault(shown.reason, []).append(number)
    taken: list[int] = []
    room = MAX_EXAMPLES
    while any(queues.values()):
        for queue in queues.values():
            if queue and len(by_image[queue[0]].runs) <= room:
                room -= len(by_image[queue[0]].runs)
                taken.append(queue.pop(0))
            else:
                queue.clear()
    return [by_image[number] for number in sorted(taken)]


def _title(view: View, shown: Shown) -> str:
    """Return why the image is here: "worst of mse, gai; most few-shot pixels"."""
    parts = []
    for reason, runs in shown.reasons.items():
        part = REASONS.get(reason, reason)
        if len(runs) < len(view.results):
            part += f" of {', '.join(view.results[run].name for run in runs)}"
        parts.append(part)
    return "; ".join(parts)


def _row(view: View, shown: Shown, scales: Scales, quality: int, folded: bool) -> ExampleRow:
    one = next(iter(shown.runs.values()))
    pictures = [
        _picture(_jpeg(one.image, quality), one.image.shape, "image", f"test image {one.name}"),
        _label_picture(one.truth, one.truth > 0, scales, "truth", one.name, quality),
    ]
    for run, example in shown.runs.items():
        who = view.results[run].name if len(view.results) > 1 else "prediction"
        unit, digits = view.words.unit, view.main.digits
        caption = f"{who}, RMSE {fixed(example.rmse, digits)} {unit}"
        known = np.isfinite(example.pred)
        pictures.append(_label_picture(example.pred, known, scales, caption, one.name, quality))
        error, known = _error(example)
        pixels = _coloured(error / (2 * scales.reach) + 0.5, known, ERROR_COLOURS)
        mean = float(error[known].mean()) if known.any() else None
        caption = f"error, mean {fixed(mean, digits, True)} {unit}"
        source = _webp(pixels, quality)
        pictures.append(
            _picture(source, pixels.shape, caption, f"signed error of {who} on {one.name}")
        )
    return ExampleRow(one.name, shown.reason, _title(view, shown), pictures, folded)


def _error(example: Example) -> tuple[FloatImage, npt.NDArray[np.bool_]]:
    """Return prediction minus truth, and where both are known."""
    error = example.pred - example.truth
    return error, (example.truth > 0) & np.isfinite(error)


def _label_picture(
    values: FloatImage,
    known: npt.NDArray[np.bool_],
    scales: Scales,
    caption: str,
    name: str,
    quality: int,
) -> Picture:
    scaled = (values - scales.low) / (scales.high - scales.low)
    pixels = _coloured(scaled, known, LABEL_COLOURS)
    return _picture(_webp(pixels, quality), pixels.shape, caption, f"{caption} of {name}")


def _picture(source: str, shape: Sequence[int], caption: str, description: str) -> Picture:
    return Picture(source, int(shape[1]), int(shape[0]), caption, description)


def _scales(examples: Sequence[Example]) -> Scales:
    """Return scales that fit all: every truth, and 98 of 100 pixels' errors."""
    values = np.concatenate([e.truth[e.truth > 0] for e in examples])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    errors = np.concatenate([np.abs(error[known]) for error, known in map(_error, examples)])
    reach = float(np.quantile(errors, 0.98)) if errors.size else 1.0
    return Scales(low, high if high > low else low + 1.0, float(f"{max(reach, 1e-6):.1g}"))


def _coloured(
    scaled: npt.NDArray[np.floating], known: npt.NDArray[np.bool_], colours: str
) -> ByteImage:
    """Return RGBA; what is not known is transparent."""
    pixels = matplotlib.colormaps[colours](np.clip(np.nan_to_num(scaled), 0, 1), bytes=True)
    pixels = np.array(pixels, dtype=np.uint8)
    pixels[~known] = 0
    return pixels


def _ramp(colours: str, quality: int) -> str:
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
