"""What a run folder says about one evaluation of its network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depthbal.evaluation import Label, LabelBins
from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports.run_files import Key

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """One test image with its truth and prediction.

    Attributes:
        name: of the image.
        reason: "best", "median", "worst" or "rare" (most few-shot pixels).
        rmse: of the image over all its pixels, main read-out, label units.
        index: place of the image in the test set.
        image: (height, width, 3) uint8 RGB.
        truth: (height, width) float32, 0 = no truth.
        pred: (height, width) float32, main read-out.
    """

    name: str
    reason: str
    rmse: float
    index: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.float32]
    pred: npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunResult:
    """One evaluation of one run: its numbers, what they follow from, and what made them.

    Attributes:
        name: shown to people, unique in a report: the folder's name, with ", balanced afterwards
            (sigma 1)" for such an evaluation.
        path: the run folder.
        file: the metrics file inside it.
        metrics: its content. Top level: balanced mask, or all samples where there is none.
        sums: (subset, read-out) -> (images, bins, terms) float64, read from the file at each
            access, so that memory does not grow with the number of runs; keep what you take.
        pooled: (subset, read-out) -> (bins, terms) float64, the sums over the images.
        counts: (images, bins) pixels of every image in every bin, without the mask.
        joint: (subset, read-out) -> (bins, bins + 2) int64 truth x prediction; columns: below the
            first edge, the bins, beyond the last edge. Empty for evaluations without it.
        coverage: subset -> (bins, 2) float64: covered, counted. Empty without a sigma.
        terms: names of the last dimension of the sums.
        bins: bins and shots.
        names: of the images (samples).
        groups: scene of every image, "" unknown.
        main: the read-out of the top-level numbers.
        label: name and unit of what is predicted.
        main_metric: what headlines show: "rmse", "mae", "mpjpe".
        curves: column of metrics.csv -> (steps, values), both (n,) float64.
        histogram: of the training labels, or None.
        prior: the loss's mixture, or None (plain losses, priors of bins or batches).
        config: config.yaml as text.
        versions: content of versions.json.
        examples: at most 24.
        method: identifies the settings but for the seed: equal for repetitions.
        seed: of the training, None if unknown.
        noise_sigma: of balancing afterwards, or the loss's last; None if there is not one number.
        posthoc: whether it was balanced afterwards.
        gaps: what is missing, in words.
        settings: config.yaml without the seeds; a run it starts from is replaced by its settings.
    """

    name: str
    path: Path
    file: Path
    metrics: dict[str, Any]
    sums: Mapping[Key, FloatArray]
    pooled: Mapping[Key, FloatArray]
    counts: FloatArray
    joint: Mapping[Key, IntArray]
    coverage: Mapping[str, FloatArray]
    terms: tuple[str, ...]
    bins: LabelBins
    names: tuple[str, ...]
    groups: tuple[str, ...]
    main: str
    label: Label
    main_metric: str
    curves: Mapping[str, tuple[FloatArray, FloatArray]]
    histogram: Histogram | None
    prior: GaussianMixture | None
    config: str
    versions: dict[str, Any]
    examples: tuple[Example, ...]
    method: str
    seed: int | None
    noise_sigma: float | None
    posthoc: bool
    gaps: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subsets(self) -> tuple[str, ...]:
        """("mask", "all") where there is a balanced mask, else ("all",)."""
        return tuple(dict.fromkeys(subset for subset, _ in self.pooled))

    @property
    def readouts(self) -> tuple[str, ...]:
        """The read-outs that are stored, the main one first."""
        stored = dict.fromkeys(readout for _, readout in self.pooled)
        return (self.main, *(name for name in stored if name != self.main))

    @property
    def readout(self) -> str:
        """The main read-out in words."""
        return self.mean_name if self.main == "mean" else self.main

    @property
    def mean_name(self) -> str:
        """What the read-out "mean" is: without a noise scale there is no posterior."""
        means = {subset: sums for (subset, name), sums in self.pooled.items() if name == "mean"}
        raws = (self.pooled.get((subset, "raw")) for subset in means)
        if not all(
            raw is not None and np.array_equal(mean, raw)
            for mean, raw in zip(means.values(), raws, strict=True)
        ):
            return "posterior mean"
        return f"mean ({'' if self._has_noise else 'no noise scale: '}the raw output)"

    @property
    def predicts_label(self) -> bool:
        """Whether the bins are of what is predicted: else sigma has another unit than they."""
        return "error" in self.terms

    @property
    def sigma_unit(self) -> str:
        """Unit of the noise scale, "" where it is not known."""
        return self.label.unit if self.predicts_label else ""

    @property
    def _has_noise(self) -> bool:
        logged = any(name.startswith("train/noise") for name in self.curves)
        known = self.noise_sigma is not None or bool(self.metrics.get("calibration"))
        return self.posthoc or known or logged

    @property
    def headline(self) -> str:
        """The subset of the top-level numbers: "mask" where there is one."""
        return self.subsets[0]
