"""Example images as small pictures inside the page."""

import base64
import itertools
from collections.abc import Iterable
from typing import Any

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from depthbal.reports.report import Comparison
from depthbal.reports.results import Example
from depthbal.reports.vocabulary import fixed, short

MAX_EXAMPLES = 24
"""Predictions shown in the whole page, so that it does not grow with the data or the runs."""

UNFOLDED = 2
"""Examples of each reason that are seen at once; the others are folded away."""

REASONS = {"best": "best", "median": "median", "worst": "worst", "rare": "most few-shot pixels"}
LONGEST_SIDE = 320
LABELS, ERRORS = "turbo", "RdBu_r"  # colours of
Image = npt.NDArray[Any]
Shown = list[tuple[int, Example]]
"""One test image: of every run that shows it, the run's number and its example."""


def draw(values: Image, known: Image, ends: tuple[float, float], colours: str, quality: int) -> str:
    """Draw values between two ends; what is not known is transparent."""
    scaled = np.clip(np.nan_to_num((values - ends[0]) / (ends[1] - ends[0])), 0, 1)
    pixels = matplotlib.colormaps[colours](scaled, bytes=True)
    pixels = np.where(known[..., None], pixels, 0).astype(np.uint8)
    swapped = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
    return _encoded(swapped, "webp", [cv2.IMWRITE_WEBP_QUALITY, quality])


def _encoded(pixels: Image, kind: str, options: list[int]) -> str:
    scale = LONGEST_SIDE / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(f".{kind}", pixels, options)
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def gallery(report: Comparison, quality: int) -> dict[str, Any] | None:
    """Return "rows" of examples, "bars" of colours and how many are "left_out", or None."""
    chosen, left_out = _chosen(report)
    if not chosen:
        return None
    scales = _scales([example for shown in chosen for _, example in shown])
    reasons = [_reason(shown) for shown in chosen]
    rows = [
        {
            "name": shown[0][1].name,
            "title": _title(report, shown),
            "pictures": _pictures(report, shown, scales, quality),
            "folded": reasons[:place].count(reasons[place]) >= UNFOLDED,
        }
        for place, shown in enumerate(chosen)
    ]
    (low, high), (_, reach), digits = *scales.values(), min(report.main.digits, 2)
    labels = [short(round(value, 2)) for value in (low, (low + high) / 2, high)]
    errors = [f"≤ {fixed(-reach, digits)}", "0", f"≥ {fixed(reach, digits, True)}"]
    unit = report.first.scores.label.unit
    titles = f"{report.axis}, truth and predictions", f"prediction minus truth ({unit})"
    ramp = np.linspace(0, 1, 256)[None].repeat(4, axis=0)
    bars = [
        {"source": draw(ramp, ramp >= 0, (0, 1), colours, quality), "title": title, "ends": ends}
        for colours, title, ends in zip(scales, titles, (labels, errors), strict=True)
    ]
    return {"rows": rows, "bars": bars, "left_out": left_out}


def _reason(shown: Shown) -> str:
    """Return the first of the reasons, in the order of the page."""
    return next(r for r in REASONS if any(example.reason == r for _, example in shown))


def _chosen(report: Comparison) -> tuple[list[Shown], int]:
    """Return the images shown, of every reason in turn those of most runs, and how many are not."""
    found: dict[int, Shown] = {}
    place: dict[int, int] = {}
    for run, result in enumerate(report.results):
        for reason in REASONS:
            own = [example for example in result.examples if example.reason == reason]
            for number, example in enumerate(own):
                found.setdefault(example.index, []).append((run, example))
                place[example.index] = min(place.get(example.index, number), number)
    queues: dict[str, list[Shown]] = {reason: [] for reason in REASONS}
    for index in sorted(found, key=lambda index: (-len(found[index]), place[index])):
        queues[_reason(found[index])].append(found[index])
    room, taken = MAX_EXAMPLES, []
    for shown in filter(None, itertools.chain(*itertools.zip_longest(*queues.values()))):
        if len(shown) <= room:
            room -= len(shown)
            taken.append(shown)
    order = list(REASONS)
    return sorted(taken, key=lambda shown: order.index(_reason(shown))), len(found) - len(taken)


def _scales(examples: Iterable[Example]) -> dict[str, tuple[float, float]]:
    """Return ends by colours that fit all: every truth, and 98 of 100 pixels' errors."""
    values = np.concatenate([e.truth[e.known] for e in examples])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    errors = np.concatenate([np.abs(error[known]) for error, known in map(_error, examples)])
    reach = float(np.quantile(errors, 0.98)) if errors.size else 1.0
    reach = float(f"{max(reach, 1e-6):.1g}")
    return {LABELS: (low, high if high > low else low + 1.0), ERRORS: (-reach, reach)}


def _title(report: Comparison, shown: Shown) -> str:
    """Return why the image is here: "worst of mse, gai; most few-shot pixels"."""
    parts = []
    for reason in dict.fromkeys(example.reason for _, example in shown):
        runs = [report.results[run].name for run, example in shown if example.reason == reason]
        of = f" of {', '.join(runs)}" if len(runs) < len(report.results) else ""
        parts.append(REASONS[reason] + of)
    return "; ".join(parts)


def _pictures(
    report: Comparison, shown: Shown, scales: dict[str, tuple[float, float]], quality: int
) -> list[dict[str, Any]]:
    """Return image and truth, then prediction and signed error of every run."""

    def drawn(values: Image, known: Image, colours: str) -> str:
        return draw(values, known, scales[colours], colours, quality)

    one, info = shown[0][1], report.main
    unit, options = report.first.scores.label.unit, [cv2.IMWRITE_JPEG_QUALITY, quality]
    image = _encoded(cv2.cvtColor(one.image, cv2.COLOR_RGB2BGR), "jpeg", options)
    found = [
        (image, "image", f"test image {one.name}"),
        (drawn(one.truth, one.known, LABELS), "truth", f"truth of {one.name}"),
    ]
    for run, example in shown:
        who = report.results[run].name if len(report.results) > 1 else "prediction"
        caption = f"{who}, RMSE {info.fixed(example.rmse)} {unit}"
        label = drawn(example.pred, np.isfinite(example.pred), LABELS)
        found.append((label, caption, f"{caption} of {one.name}"))
        error, known = _error(example)
        mean = float(error[known].mean()) if known.any() else None
        caption = f"error, mean {info.fixed(mean, True)} {unit}"
        found.append((drawn(error, known, ERRORS), caption, f"signed error of {who} on {one.name}"))
    height, width = one.truth.shape
    return [
        {"source": s, "caption": c, "description": d, "width": width, "height": height}
        for s, c, d in found
    ]


def _error(example: Example) -> tuple[Image, Image]:
    """Return prediction minus truth, and where both are known."""
    error = example.pred - example.truth
    return error, example.known & np.isfinite(error)
