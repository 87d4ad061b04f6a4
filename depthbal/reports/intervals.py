"""Intervals and bands from resampled differences."""

import math
import warnings

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of all intervals and bands."""

MAX_LOST = 0.05
"""A number that more than this share of the resamples lacks has no interval."""

_ONE_SIGMA = (0.158655, 0.841345)


def expanded_quantile(units: int) -> float:
    """Return how many standard deviations an interval of 95 % over few units has on either side.

        sqrt(n / (n - 1)) t_{0.975, n - 1}

    instead of 1.96: resamples of n units vary too little by the root, and their own spread is not
    known but estimated, which Student's t accounts for.

    Source: the expanded percentile interval; Hesterberg, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69, 2015, section 5.3.

    Example:
        >>> round(expanded_quantile(20), 3), round(expanded_quantile(1000), 3)
        (2.147, 1.963)
    """
    student = float(stats.t.ppf((1 + LEVEL) / 2, units - 1))
    return math.sqrt(units / (units - 1)) * student


def percentile_interval(resampled: FloatArray, units: int) -> tuple[float, float] | None:
    """Return the central 95 % of resampled differences, None where too many are NaN.

    The tails are a little smaller than 2.5 % where few units were resampled, see
    `expanded_quantile`.

    Args:
        resampled: (resamples,) NaN where a resample has no such number.
        units: scenes or blocks that were resampled, 2 or more.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Example:
        >>> low, high = percentile_interval(np.arange(101.0), units=10**6)
        >>> round(low, 3), round(high, 3)
        (2.5, 97.5)
    """
    known = resampled[np.isfinite(resampled)]
    if len(known) < (1 - MAX_LOST) * len(resampled) or not len(known):
        return None
    tail = float(stats.norm.cdf(-expanded_quantile(units)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def simultaneous_band(
    estimate: FloatArray, resampled: FloatArray, usable: npt.NDArray[np.bool_], units: int
) -> tuple[FloatArray, FloatArray]:
    """Return a band that holds in all its bins at once with 95 %.

        estimate_b -+ c spread_b,  c = 95 % quantile of max_b |resampled_b - estimate_b| / spread_b

    The spread is half the width of the central 68.27 % of the resamples: unlike a standard
    deviation it exists for Student's t with 1 degree of freedom, which two seeds have.

    Args:
        estimate: (bins,)
        resampled: (resamples, bins), NaN where a bin is empty in a resample.
        usable: (bins,) which bins shall have a band.
        units: scenes or blocks that were resampled; c grows as `expanded_quantile` does.

    Returns:
        Lower and upper ends, (bins,); NaN outside ``usable`` and where more than 5 % of the
        resamples lack the bin.

    Source: the maximum-t bootstrap; Davison and Hinkley, 1997, section 4.2.4.
    """
    low, high = np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    kept = usable & np.isfinite(estimate) & (np.isnan(resampled).mean(0) <= MAX_LOST)
    if not kept.any():
        return low, high
    center, values = estimate[kept], resampled[:, kept]
    spread = np.diff(_quantiles(values, _ONE_SIGMA), axis=0)[0] / 2
    varies = spread > 0
    width = np.zeros_like(spread)
    if varies.any():
        distance = np.abs(values[:, varies] - center[varies]) / spread[varies]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any of the bins
            largest = np.nanmax(distance, axis=1)
        growth = expanded_quantile(units) / float(stats.norm.ppf((1 + LEVEL) / 2))
        width[varies] = growth * np.nanquantile(largest, LEVEL) * spread[varies]
    low[kept], high[kept] = center - width, center + width
    return low, high


def _quantiles(values: FloatArray, wanted: tuple[float, ...]) -> FloatArray:
    """Return quantiles over the first axis, without NaN (which are slow, and rare)."""
    found = np.quantile(values, wanted, axis=0)
    holes = np.isnan(values).any(0)
    if holes.any():
        found[:, holes] = np.nanquantile(values[:, holes], wanted, axis=0)
    return found
