"""What a comparison of methods says: paired differences with intervals over scenes and seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from depthbal.reports.methods import Method
from depthbal.reports.rebinning import Binning

__all__ = ["BinDifferences", "Comparison", "Difference", "Method", "Pair", "TradeoffPoint"]

FloatArray = npt.NDArray[np.float64]
Statistic = Literal["bins", "pooled"]
"""How a group's number is averaged.

"bins": mean over the non-empty bins, all pixels: no draw of a mask is in it.
"pooled": the numbers of metrics.json: over the balanced mask's pixels, or over all samples where
there is no mask.
"""


@dataclass(frozen=True)
class Difference:
    """A metric of one group of bins: second minus first.

    Attributes:
        first, second: the two methods' numbers (mean over seeds).
        estimate: second - first; None where the group has no pixels.
        low, high: ends of the 95 % interval; None where there is none.
    """

    first: float | None
    second: float | None
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BinDifferences:
    """A metric in every bin of a binning: second minus first.

    Attributes:
        estimate: (coarse,) NaN for empty bins.
        low, high: (coarse,) band that holds in all its bins at once with 95 %; NaN where there is
            none (too few images or scenes).
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Pair:
    """The second method against the first.

    Attributes:
        first, second: places in `Comparison.methods`; 0 is the baseline.
        differences: (metric, group, statistic) -> Difference; group "overall", "many", "medium",
            "few".
        bins: (metric, name of the binning) -> BinDifferences, all pixels.
        sentence: what was found, over what it holds.
    """

    first: int
    second: int
    differences: Mapping[tuple[str, str, Statistic], Difference]
    bins: Mapping[tuple[str, str], BinDifferences]
    sentence: str


@dataclass(frozen=True)
class TradeoffPoint:
    """One run in the plane of many-shot against few-shot error, main metric.

    Attributes:
        run: place in the list of results.
        method: place in `Comparison.methods`.
        family: points of one family differ in sigma (and seed) only: a line joins them.
        noise_sigma: of the loss or of balancing afterwards; None without one.
        many, few: mean over bins, all pixels.
        many_pooled, few_pooled: the numbers of metrics.json.
    """

    run: int
    method: int
    family: str
    noise_sigma: float | None
    many: float | None
    few: float | None
    many_pooled: float | None
    few_pooled: float | None


@dataclass(frozen=True)
class Comparison:
    """All methods against each other, on the same images.

    Attributes:
        methods: the first is the baseline.
        metrics: that were compared, the main one first.
        pairs: of all methods; those with the baseline come first.
        binnings: those of `Pair.bins`.
        tradeoff: one point per run.
        resamples: how many.
        seed: of the resampling.
        level: of the intervals, 0.95.
        units: what was drawn: "327 test scenes (654 images)", "20 blocks of 16 images".
        scenes: how many of them.
        empty: (bins,) in how many resamples a bin that has pixels was empty and left out.
        notes: what else a reader must know, in words.
    """

    methods: tuple[Method, ...]
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...]
    binnings: tuple[Binning, ...]
    tradeoff: tuple[TradeoffPoint, ...]
    resamples: int
    seed: int
    level: float
    units: str
    scenes: int
    empty: npt.NDArray[np.int64]
    notes: tuple[str, ...]
