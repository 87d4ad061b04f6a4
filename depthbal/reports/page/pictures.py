"""Example images as small pictures inside the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from depthbal.reports.results import Example
from depthbal.reports.tables import Report
from depthbal.reports.vocabulary import fixed, short

MAX_EXAMPLES = 24
"""Predictions shown in the whole page, so that it does not grow with the data or the runs."""

UNFOLDED = 2
"""Examples of each reason that are seen at once; the others are folded away."""

REASONS = {"best": "best", "median": "median", "worst": "worst", "rare": "most few-shot pixels"}
LONGEST_SIDE = 320
LABEL_COLOURS, ERROR_COLOURS = "turbo", "RdBu_r"
Mask = npt.NDArray[np.bool_]
FloatImage = npt.NDArray[np.floating]


class Picture(NamedTuple):
    """One small picture: its data URI, size, and what it shows."""

    source: str
    width: int
    height: int
    caption: str
    description: str


class ColourBar(NamedTuple):
    """A colour bar with the values at its ends and in its middle."""

    source: str
    title: str
    ends: tuple[str, str, str]


class ExampleRow(NamedTuple):
    """One test image with the pictures of all runs."""

    name: str
    title: str
    pictures: list[Picture]
    folded: bool


class Gallery(NamedTuple):
    """All examples, and their two colour bars."""

    rows: list[ExampleRow]
    bars: list[ColourBar]
    left_out: int


class Shown(NamedTuple):
    """One test image: {run: example}, and {reason: runs}."""

    runs: dict[int, Example]
    reasons: dict[str, list[int]]

    @property
    def reason(self) -> str:
        """The first of the reasons, in the order of the page."""
        known = [reason for reason in REASONS if reason in self.reasons]
        return known[0] if known else next(iter(self.reasons))


@dataclass(frozen=True)
class Painter:
    """Draws labels from low to high and errors from -reach to reach, alike in all examples."""

    low: float
    high: float
    reach: float
    quality: int

    @classmethod
    def of(cls, examples: Sequence[Example], quality: int) -> "Painter":
        """Return scales that fit all: every truth, and 98 of 100 pixels' errors."""
        values = np.concatenate([e.truth[e.truth > 0] for e in examples])
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        errors = np.concatenate([np.abs(error[known]) for error, known in map(_error, examples)])
        reach = float(np.quantile(errors, 0.98)) if errors.size else 1.0
        return cls(
            low, high if high > low else low + 1.0, float(f"{max(reach, 1e-6):.1g}"), quality
        )

    def label(self, values: FloatImage, known: Mask) -> str:
        """Draw a map of labels."""
        return self.colours((values - self.low) / (self.high - self.low), known, LABEL_COLOURS)

    def error(self, values: FloatImage, known: Mask) -> str:
        """Draw a map of signed errors."""
        return self.colours(values / (2 * self.reach) + 0.5, known, ERROR_COLOURS)

    def ramp(self, colours: str) -> str:
        """Draw a colour bar."""
        values = np.linspace(0, 1, 256)[None].repeat(4, axis=0)
        return self.colours(values, np.ones_like(values, dtype=bool), colours)

    def colours(self, scaled: FloatImage, known: Mask, colours: str) -> str:
        """Draw values of 0 to 1; what is not known is transparent."""
        pixels = matplotlib.colormaps[colours](np.clip(np.nan_to_num(scaled), 0, 1), bytes=True)
        pixels = np.where(known[..., None], pixels, 0).astype(np.uint8)
        swapped = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
        return _encoded(swapped, "webp", [cv2.IMWRITE_WEBP_QUALITY, self.quality])

    def image(self, pixels: npt.NDArray[np.uint8]) -> str:
        """Draw an RGB image."""
        swapped = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        return _encoded(swapped, "jpeg", [cv2.IMWRITE_JPEG_QUALITY, self.quality])


def gallery(report: Report, quality: int) -> Gallery | None:
    """Return examples of all runs, at most `MAX_EXAMPLES` predictions in all, or None.

    Images of all runs stand together; each reason gets its share.

    Args:
        report: the results.
        quality: of the compressed pictures, 0 to 100.
    """
    by_image = _by_image(report)
    if not by_image:
        return None
    chosen = _chosen(by_image)
    painter = Painter.of([e for shown in chosen for e in shown.runs.values()], quality)
    seen: dict[str, int] = {}
    rows = []
    for shown in chosen:
        seen[shown.reason] = seen.get(shown.reason, 0) + 1
        name, title = next(iter(shown.runs.values())).name, _title(report, shown)
        folded = seen[shown.reason] > UNFOLDED
        rows.append(ExampleRow(name, title, _pictures(report, shown, painter), folded))
    digits, low, high = min(report.main.digits, 2), painter.low, painter.high
    ends = [short(round(value, 2)) for value in (low, (low + high) / 2, high)]
    reach = fixed(painter.reach, digits, True)
    bars = [
        ColourBar(
            painter.ramp(LABEL_COLOURS),
            f"{report.words.axis}, truth and predictions",
            (ends[0], ends[1], ends[2]),
        ),
        ColourBar(
            painter.ramp(ERROR_COLOURS),
            f"prediction minus truth ({report.words.unit})",
            (f"≤ {fixed(-painter.reach, digits)}", "0", f"≥ {reach}"),
        ),
    ]
    return Gallery(rows, bars, len(by_image) - len(chosen))


def _by_image(report: Report) -> list[Shown]:
    """Collect the runs and reasons of every test image; those of most runs first."""
    found: dict[int, Shown] = {}
    place: dict[int, int] = {}
    for run, result in enumerate(report.results):
        seen: dict[str, int] = {}
        for example in result.examples:
            shown = found.setdefault(example.index, Shown({}, {}))
            shown.runs[run] = example
            shown.reasons.setdefault(example.reason, []).append(run)
            seen[example.reason] = seen.get(example.reason, -1) + 1
            place[example.index] = min(place.get(example.index, len(found)), seen[example.reason])
    order = list(REASONS)

    def rank(index: int) -> tuple[int, int, int]:
        shown = found[index]
        first = order.index(shown.reason) if shown.reason in order else len(order)
        return first, -len(shown.runs), place[index]

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


def _title(report: Report, shown: Shown) -> str:
    """Return why the image is here: "worst of mse, gai; most few-shot pixels"."""
    parts = []
    for reason, runs in shown.reasons.items():
        part = REASONS.get(reason, reason)
        if len(runs) < len(report.results):
            part += f" of {', '.join(report.results[run].name for run in runs)}"
        parts.append(part)
    return "; ".join(parts)


def _pictures(report: Report, shown: Shown, painter: Painter) -> list[Picture]:
    one, info = next(iter(shown.runs.values())), report.main
    height, width = one.truth.shape
    truth = painter.label(one.truth, one.truth > 0)
    pictures = [
        Picture(painter.image(one.image), width, height, "image", f"test image {one.name}"),
        Picture(truth, width, height, "truth", f"truth of {one.name}"),
    ]
    for run, example in shown.runs.items():
        who = report.results[run].name if len(report.results) > 1 else "prediction"
        unit, size = report.words.unit, (example.truth.shape[1], example.truth.shape[0])
        caption = f"{who}, RMSE {info.fixed(example.rmse)} {unit}"
        source = painter.label(example.pred, np.isfinite(example.pred))
        pictures.append(Picture(source, *size, caption, f"{caption} of {one.name}"))
        error, known = _error(example)
        mean = float(error[known].mean()) if known.any() else None
        caption = f"error, mean {info.fixed(mean, True)} {unit}"
        source = painter.error(error, known)
        pictures.append(Picture(source, *size, caption, f"signed error of {who} on {one.name}"))
    return pictures


def _error(example: Example) -> tuple[npt.NDArray[np.float32], Mask]:
    """Return prediction minus truth, and where both are known."""
    error = example.pred - example.truth
    return error, (example.truth > 0) & np.isfinite(error)


def _encoded(pixels: npt.NDArray[np.uint8], kind: str, options: list[int]) -> str:
    longest = max(pixels.shape[:2])
    if longest > LONGEST_SIDE:
        scale = LONGEST_SIDE / longest
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(f".{kind}", pixels, options)
    if not done:
        raise RuntimeError(f"OpenCV could not write an example image as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
