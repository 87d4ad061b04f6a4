"""Bootstrap over test scenes and seeds, and the intervals and bands that follow.

Not by scipy.stats.bootstrap: it would gather the sums of every drawn image, (resamples, images,
bins, terms), once per statistic. Here all statistics of all runs follow from the same few draws,
one matrix product of how often each scene is drawn with the sums of each scene.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from depthbal.reports.results import FloatArray

LEVEL = 0.95
"""Of all intervals and bands."""

BLOCK, MIN_BLOCKS = 16, 10
"""Images in a block where scenes are unknown (neighbours are often one scene), and at least how
many blocks: smaller test sets get shorter ones."""

MIN_UNITS = 5
"""With fewer scenes or blocks than this there are no intervals."""

FEW_UNITS = 20
"""With fewer a reader is told that intervals may be too narrow: of those from 12 blocks drawn from
NYU Depth V2's test images, 85 % held the difference in RMSE of few-shot bins over all blocks."""

MAX_LOST = 0.05
"""A number that more than this share of the resamples lacks has no interval."""

_CHUNK = 50  # resamples worked on at once


@dataclass(frozen=True)
class Units:
    """What is drawn: scenes, or blocks of consecutive images where scenes are unknown."""

    of_image: npt.NDArray[np.int64]  # (images,) the unit of every image, 0 to count - 1
    count: int
    text: str  # for people: "327 test scenes (654 images)"

    def sums(self, array: FloatArray) -> FloatArray:
        """Return the sums over the images of every unit, (units, ...) of (images, ...)."""
        order = np.argsort(self.of_image, kind="stable")
        starts = np.searchsorted(self.of_image[order], np.arange(self.count))
        return np.add.reduceat(array[order], starts, axis=0)  # type: ignore[no-any-return]


def units_of(groups: Sequence[str], noun: str = "images") -> Units:
    """Return the scenes of a test set (images,); without scenes ("", or all one) blocks."""
    names = list(groups) if len(set(groups)) > 1 else [""] * len(groups)
    block = max(1, min(BLOCK, len(names) // MIN_BLOCKS))
    unknown = iter(range(len(names)))
    keys = [(name, -1) if name else ("", next(unknown) // block) for name in names]
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    blocks = sum(1 for name, _ in order if not name)
    scenes = len(order) - blocks
    texts = [f"{scenes:,} test scenes"] if scenes and len(order) < len(names) else []
    if blocks and block > 1:
        texts.append(f"{blocks:,} blocks of {block} consecutive {noun}")
    elif not texts:
        texts = [f"{len(names):,} test {noun if len(names) > 1 else noun.removesuffix('s')}"]
    if not blocks and len(order) < len(names):
        texts = [f"{texts[0]} ({len(names):,} {noun})"]
    return Units(np.array([order[key] for key in keys]), len(order), " and ".join(texts))


def resampled_sums(
    sums: Sequence[FloatArray], units: Units, resamples: int, seed: int
) -> list[FloatArray]:
    """Return per array (images, ...) its sums (1 + resamples, ...), in the first row over all."""
    flat = [units.sums(array).reshape(units.count, -1) for array in sums]
    found = [np.empty((1 + resamples, array.shape[1])) for array in flat]
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        drawn = rng.integers(units.count, size=(min(_CHUNK, resamples - start), units.count))
        weights = np.stack([np.bincount(row, minlength=units.count) for row in drawn]) * 1.0
        for array, out in zip(flat, found, strict=True):
            out[0] = array.sum(0)
            out[1 + start : 1 + start + len(weights)] = weights @ array
    shapes = [(1 + resamples, *array.shape[1:]) for array in sums]
    return [out.reshape(shape) for out, shape in zip(found, shapes, strict=True)]


def seed_weights(seeds: Sequence[int | None], resamples: int, seed: int) -> FloatArray:
    """Return weights (1 + resamples, S) that make a mean vary as a mean over S seeds should.

        w_s = 1/S + (z_s - mean z) / sqrt(S c),   z_s ~ N(0, 1),  c ~ chi^2 with S - 1 degrees

    Then sum_s w_s x_s has the distribution of mean(x) + t sd(x) / sqrt(S) with Student's t of S - 1
    degrees of freedom. Seeds drawn with replacement would make intervals that end at the extreme
    ones, which for 3 seeds cover 75 %, not 95 %. The first row is 1/S; the same seeds get the same
    weights, which pairs methods that share them.
    """
    count = len(seeds)
    weights = np.full((1 + resamples, count), 1 / count)
    if count > 1:
        rng = np.random.default_rng([seed, *(abs(s or 0) for s in seeds)])
        normal = rng.standard_normal((resamples, count))
        chi2 = rng.chisquare(count - 1, (resamples, 1))
        weights[1:] += (normal - normal.mean(1, keepdims=True)) / np.sqrt(count * chi2)
    return weights


def expanded_quantile(units: int) -> float:
    """Return sqrt(n / (n - 1)) t_{0.975, n - 1}, in place of the 1.96 of a normal mean.

    Source: the expanded percentile interval; Hesterberg, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69, 2015, section 5.3.
    """
    return math.sqrt(units / (units - 1)) * float(stats.t.ppf((1 + LEVEL) / 2, units - 1))


def percentile_interval(resampled: FloatArray, units: int) -> tuple[float, float] | None:
    """Return the central 95 % of resampled differences (n,), None where too many are NaN."""
    known = resampled[np.isfinite(resampled)]
    if units < MIN_UNITS or not len(known) or len(known) < (1 - MAX_LOST) * len(resampled):
        return None
    tail = float(stats.norm.cdf(-expanded_quantile(units)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def simultaneous_band(
    estimate: FloatArray, resampled: FloatArray, usable: npt.NDArray[np.bool_], units: int
) -> tuple[FloatArray, FloatArray]:
    """Return the ends (bins,) of a band that holds in all its bins at once with 95 %.

        estimate_b -+ c spread_b,  c = 95 % quantile of max_b |resampled_b - estimate_b| / spread_b

    The spread is half the width of the central 68.27 % of the resamples (n, bins): unlike a
    standard deviation it exists for Student's t with 1 degree of freedom, which two seeds have.
    There is none outside ``usable``, and where more than 5 % of the resamples lack the bin.

    Source: the maximum-t bootstrap; Davison and Hinkley, 1997, section 4.2.4.
    """
    width = np.full(estimate.shape, np.nan)
    kept = usable & np.isfinite(estimate) & (np.isnan(resampled).mean(0) <= MAX_LOST)
    if kept.any():
        values, one_sd = resampled[:, kept], stats.norm.cdf([-1, 1])
        holes = np.isnan(values).any(0)  # rare, and nanquantile is slow
        ends = np.quantile(values, one_sd, axis=0)
        ends[:, holes] = np.nanquantile(values[:, holes], one_sd, axis=0)
        spread = (ends[1] - ends[0]) / 2
        varies, width[kept] = spread > 0, 0.0
        if varies.any():
            distance = np.abs(values - estimate[kept])[:, varies] / spread[varies]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any bin
                largest = np.nanmax(distance, axis=1)
            growth = expanded_quantile(units) / float(stats.norm.ppf((1 + LEVEL) / 2))
            width[kept] = growth * np.nanquantile(largest, LEVEL) * spread
    return estimate - width, estimate + width
