"""What metrics, subsets, read-outs and labels are called, and numbers as text and short JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from depthbal.evaluation import Label

Better = Literal["lower", "higher", "zero"]

SUBSETS = {"mask": "balanced mask", "all": "all {items}"}
READOUTS = {"raw": "raw output", "clamped": "clamped to the label range"}
SIGNIFICANT = 7
"""Digits of numbers in the page's data: enough to compare with metrics.json, half its size."""

_KNOWN: dict[str, tuple[str, str, Better, str]] = {
    "rmse": ("RMSE", "label", "lower", "root of the mean squared error"),
    "mae": ("MAE", "label", "lower", "mean absolute error"),
    "gm": ("GM", "label", "lower", "geometric mean of the absolute errors"),
    "bias": ("Bias", "label", "zero", "mean of prediction minus truth"),
    "abs_rel": ("AbsRel", "", "lower", "mean of absolute error over truth"),
    "delta1": ("δ < 1.25", "", "higher", "share within a factor of 1.25"),
    "delta2": ("δ < 1.25²", "", "higher", "share within a factor of 1.25²"),
    "delta3": ("δ < 1.25³", "", "higher", "share within a factor of 1.25³"),
    "log10": ("log10", "", "lower", "mean absolute difference of the decimal logarithms"),
    "silog": ("SILog", "", "lower", "100 × standard deviation of the log error"),
    "mse": ("MSE", "squared", "lower", "mean squared error"),
}


@dataclass(frozen=True)
class MetricInfo:
    """How one metric is shown.

    Attributes:
        key: in metrics.json.
        name: for people.
        unit: "" for ratios.
        digits: decimals.
        better: which direction is better.
        meaning: one phrase.
    """

    key: str
    name: str
    unit: str
    digits: int
    better: Better
    meaning: str

    @property
    def title(self) -> str:
        """The name with its unit: "RMSE in m"."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    def fixed(self, value: float | None, sign: bool = False) -> str:
        """Return a number as text."""
        return fixed(value, self.digits, sign)

    def text(self, value: float | None) -> str:
        """Return a number with its unit."""
        return f"{self.fixed(value)}{f' {self.unit}' if self.unit else ''}"

    def best(self, values: Iterable[float | None]) -> float | None:
        """Return the best of some numbers, None where none is known."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        if self.better == "zero":
            return min(known, key=abs)
        return max(known) if self.better == "higher" else min(known)


def metric_infos(
    names: Iterable[str], main: str, unit: str, scale: float | None
) -> list[MetricInfo]:
    """Return the metrics to show, the main one first, then those that say most.

    A metric that is not ours is the mean of an error that was measured elsewhere, in label units.

    Args:
        names: metrics that the data have.
        main: the headline's.
        unit: of the label.
        scale: the main metric's overall value, which sets the decimals.

    Example:
        >>> [(info.title, info.digits) for info in metric_infos(["silog", "epe"], "epe", "px", 7.1)]
        [('epe in px', 2), ('SILog', 1)]
    """
    present = set(names)
    order = dict.fromkeys([main, *_KNOWN, *names])
    digits, found = digits_for(scale or 1.0), []
    for key in order:
        if key in present:
            name, kind, better, meaning = _KNOWN.get(
                key, (key, "label", "lower", "mean of this error")
            )
            shown = {"label": unit, "squared": f"{unit}²"}.get(kind, "")
            own = digits if kind else 1 if key == "silog" else 3
            found.append(MetricInfo(key, name, shown, own, better, meaning))
    return found


def metric_name(key: str) -> str:
    """Return what a metric is called, its key in words where it is not known."""
    return _KNOWN[key][0] if key in _KNOWN else key.replace("_", " ")


@dataclass(frozen=True)
class Words:
    """The nouns of one report.

    Attributes:
        label: "depth".
        unit: "m".
        items: what is counted in bins: "pixels", or "samples" where an image has one label.
    """

    label: str
    unit: str
    items: str

    @classmethod
    def of(cls, label: Label, counts: npt.NDArray[np.float64]) -> "Words":
        """Return the nouns of a label, of which an image has one or several (images, bins)."""
        several = (counts.sum(1) > 1).any()
        return cls(label.name, label.unit, "pixels" if several else "samples")

    @property
    def axis(self) -> str:
        """The label with its unit, for axes."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def subset(self, key: str) -> str:
        """Name a subset: "balanced mask", "all pixels"."""
        return SUBSETS.get(key, key).format(items=self.items)


# ---- numbers ----


def fixed(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number with a true minus sign, "–" where there is none.

    Example:
        >>> fixed(-1.2345, 2), fixed(0.5, 1, sign=True), fixed(None, 2), fixed(-0.001, 2, sign=True)
        ('−1.23', '+0.5', '–', '0.00')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return (text if float(text) else text.lstrip("+-")).replace("-", "−")


def short(value: float) -> str:
    """Return a number without trailing zeros or binary noise.

    Example:
        >>> short(0.7999999999999999), short(10.0), short(25000000)
        ('0.8', '10', '25000000')
    """
    return f"{round(value):d}" if value == round(value) else f"{value:.6g}"


def digits_for(scale: float) -> int:
    """Return how many decimals errors of this size are shown with: three figures or so.

    Example:
        >>> [digits_for(scale) for scale in (0.02, 0.3, 1.26, 7.1, 88.0)]
        [4, 3, 3, 2, 1]
    """
    if not (scale > 0 and math.isfinite(scale)):
        return 3
    if scale >= 5:
        return 2 if scale < 50 else 1
    return 3 if scale >= 0.1 else min(9, 2 - math.floor(math.log10(scale)))


def jsonable(values: npt.ArrayLike) -> list[Any]:
    """Return an array as nested lists of rounded numbers, None for what is not finite.

    Example:
        >>> jsonable([1 / 3, float("nan"), 2.0])
        [0.3333333, None, 2]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1:
        return [jsonable(row) for row in array]
    return [rounded(value) for value in array.tolist()]


def rounded(value: float | None) -> float | int | None:
    """Return a number with `SIGNIFICANT` digits; None where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    if value == round(value) and abs(value) < 2**53:
        return round(value)
    return float(f"{value:.{SIGNIFICANT}g}")


def flat(content: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """Return nested settings as one level, values as text; long lists by their length and ends.

    Example:
        >>> flat({"mask": {"seed": 0}, "edges": list(range(101)), "size": [72, 96], "none": None})
        {'mask.seed': '0', 'edges': '101 values, 0 to 100', 'size': '72, 96', 'none': '–'}
    """
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{start}{key}.")
        else:
            found[f"{start}{key}"] = value_text(value)
    return found


def value_text(value: Any) -> str:
    """Return a setting as text."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return short(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > 8:
            return f"{len(value)} values, {value_text(value[0])} to {value_text(value[-1])}"
        return ", ".join(value_text(part) for part in value) or "none"
    return str(value)
