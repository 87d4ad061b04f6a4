"""What metrics, subsets, read-outs and labels are called on the page."""

from dataclasses import dataclass
from typing import Literal

from depthbal.reports.page.numbers import digits_for
from depthbal.reports.results import RunResult

Better = Literal["lower", "higher", "zero"]

SUBSETS = {"mask": "balanced mask", "all": "all {items}"}
READOUTS = {"raw": "raw output", "clamped": "clamped to the label range"}
REASONS = {
    "best": "best",
    "median": "median",
    "worst": "worst",
    "rare": "most few-shot pixels",
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
    "mpjpe": ("MPJPE", "label", "lower", "mean distance of the joints"),
    "pa_mpjpe": ("PA-MPJPE", "label", "lower", "mean distance of the joints after alignment"),
    "mpvpe": ("MPVPE", "label", "lower", "mean distance of the vertices"),
}


def metric_infos(names: tuple[str, ...], main: str, unit: str, scale: float) -> list[MetricInfo]:
    """Return the metrics to show, the main one first, then those that say most.

    Args:
        names: metrics that the data have.
        main: the headline's.
        unit: of the label.
        scale: the main metric's overall value, which sets the decimals.
    """
    order = [main, *_KNOWN, *names]
    return [
        _info(name, unit, digits_for(scale)) for name in dict.fromkeys(order) if name in set(names)
    ]


def _info(name: str, unit: str, digits: int) -> MetricInfo:
    title, kind, better, meaning = _KNOWN.get(name, (name, "label", "lower", ""))
    if kind == "label":
        return MetricInfo(name, title, unit, digits, better, meaning)
    if kind == "squared":
        return MetricInfo(name, title, f"{unit}²", digits, better, meaning)
    return MetricInfo(name, title, "", 1 if name == "silog" else 3, better, meaning)


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

    @property
    def axis(self) -> str:
        """The label with its unit, for axes."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def subset(self, key: str) -> str:
        """Name a subset: "balanced mask", "all pixels"."""
        return SUBSETS.get(key, key).format(items=self.items)


def words_of(result: RunResult) -> Words:
    """Return the nouns that fit a result."""
    single = not (result.counts.sum(1) > 1).any()
    return Words(result.label.name, result.label.unit, "samples" if single else "pixels")
