"""What metrics, subsets, read-outs and labels are called, and numbers as text and short JSON."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Better = Literal["lower", "higher", "zero"]

SUBSETS = {"mask": "balanced mask", "all": "all {items}"}
READOUTS = {
    "raw": "raw output",
    "clamped": "clamped to the label range",
    "mean": "posterior mean",
    "median": "posterior median",
    "balanced": "balanced afterwards",
    "median_aligned": "scaled to the truth's median per image: not metric",
    "depth_aligned": "fitted to the truth in depth per image: not metric",
    "inverse_aligned": "fitted to the truth in inverse depth per image: not metric",
}
ALIGNED = {
    "median_aligned": "median",
    "depth_aligned": "least squares",
    "inverse_aligned": "least squares, inverse",
}
SIGNIFICANT = 7  # digits in the page's data: enough to compare with metrics.json, half its size

_Words = tuple[str, str, Better, str]  # name, kind of unit, what is better, meaning
_KNOWN: dict[str, _Words] = {
    "rmse": ("RMSE", "label", "lower", "root of the mean squared error"),
    "mae": ("MAE", "label", "lower", "mean absolute error"),
    "gm": ("GM", "label", "lower", "geometric mean of the absolute errors"),
    "bias": ("Bias", "label", "zero", "mean of prediction minus truth"),
    "abs_rel": ("AbsRel", "", "lower", "mean of absolute error over truth"),
    "sq_rel": ("SqRel", "label", "lower", "mean of squared error over truth"),
    "delta1": ("δ < 1.25", "", "higher", "share within a factor of 1.25"),
    "delta2": ("δ < 1.25²", "", "higher", "share within a factor of 1.25²"),
    "delta3": ("δ < 1.25³", "", "higher", "share within a factor of 1.25³"),
    "log10": ("log10", "", "lower", "mean absolute difference of the decimal logarithms"),
    "rmse_log": ("RMSElog", "", "lower", "root of the mean squared natural log error"),
    "silog": ("SILog × 100", "", "lower", "100 × standard deviation of the log error (λ = 1)"),
    "boundary_f1": ("Boundary F1", "", "higher", "F1 of the places where depth jumps by 5 to 25 %"),
    "flying": ("Flying pixels", "", "lower", "share predicted between the two surfaces of an edge"),
    "mse": ("MSE", "squared", "lower", "mean squared error"),
}


@dataclass(frozen=True)
class MetricInfo:
    """How one metric is shown: key in metrics.json, name, unit ("" for ratios), decimals, ..."""

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
        if self.better == "zero":
            return min(known, key=abs, default=None)
        return max(known, default=None) if self.better == "higher" else min(known, default=None)


def metric_infos(
    names: Iterable[str], main: str, unit: str, scale: float | None
) -> list[MetricInfo]:
    """Return the metrics to show, the main one first; its overall value sets the decimals."""
    present, digits, found = set(names), digits_for(scale or 1.0), []
    for key in dict.fromkeys([main, *_KNOWN, *names]):
        if key in present:
            unknown: _Words = (key, "label", "lower", "mean of this error")
            name, kind, better, meaning = _KNOWN.get(key, unknown)
            shown = {"label": unit, "squared": f"{unit}²"}.get(kind, "")
            own = digits if kind else 1 if key == "silog" else 3
            found.append(MetricInfo(key, name, shown, own, better, meaning))
    return found


def curve_name(column: str) -> str:
    """Return a column of metrics.csv in words, as it is where it follows no known pattern."""
    part, _, key = column.partition("/")
    where = {"train": "training", "val": "validation"}.get(part)
    if where is None or not key:
        return column
    endings = {"_bins": ", mean over bins", "_epoch": ", mean of the epoch", "_step": ", steps"}
    ending = next((end for end in endings if key.endswith(end)), "")
    key = key.removesuffix(ending)
    name = _KNOWN[key][0] if key in _KNOWN else key.replace("_", " ")
    return f"{where} {name}{endings.get(ending, '')}"


def fixed(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number with a true minus sign, "–" where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return (text if float(text) else text.lstrip("+-")).replace("-", "−")


def short(value: float) -> str:
    """Return a number without trailing zeros or binary noise."""
    return f"{round(value):d}" if value == round(value) else f"{value:.6g}"


def digits_for(scale: float) -> int:
    """Return how many decimals errors of this size are shown with: three figures or so."""
    if not (scale > 0 and math.isfinite(scale)):
        return 3
    if scale >= 5:
        return 2 if scale < 50 else 1
    return 3 if scale >= 0.1 else min(9, 2 - math.floor(math.log10(scale)))


def jsonable(values: npt.ArrayLike) -> list[Any]:
    """Return an array (n,) as a list of rounded numbers, None for what is not finite."""
    return [rounded(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def rounded(value: float | None) -> float | int | None:
    """Return a number with `SIGNIFICANT` digits; None where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    whole = value == round(value) and abs(value) < 2**53
    return round(value) if whole else float(f"{value:.{SIGNIFICANT}g}")


def flat(content: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """Return nested settings as one level, values as text; long lists by their length and ends."""
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
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} values, {value_text(value[0])} to {value_text(value[-1])}"
    if isinstance(value, list):
        return ", ".join(value_text(part) for part in value) or "none"
    return short(value) if isinstance(value, float) else str(value)
