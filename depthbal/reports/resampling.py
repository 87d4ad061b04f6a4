"""Bootstrap over test scenes and seeds, and the intervals and bands that follow.

Not by scipy.stats.bootstrap: it would gather the sums of every drawn image, (resamples, images,
bins, terms), once per statistic. Here all statistics of all runs follow from the same few draws,
by matrix products of how often each scene is drawn with the sums of each scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthbal.evaluation.balancing import scenes_of
from depthbal.reports.results import FloatArray

Weights = npt.NDArray[np.uint16]

LEVEL = 0.95
"""Of all intervals and bands."""

BLOCK, MIN_BLOCKS = 16, 10
"""Images in a block where scenes are unknown (neighbours are often one scene), and at least how
many blocks: smaller test sets get shorter ones."""

MIN_UNITS = 5
"""With fewer scenes or blocks than this there are no intervals."""

BAND_UNITS = 10
"""Bins that fewer support have no band: some resamples hold one of them alone, without spread."""

FEW_UNITS = 20
"""Where fewer support a number a reader is told that its interval may be too narrow."""

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
    names = scenes_of(groups)
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


def draw(units: int, resamples: int, seed: int) -> Weights:
    """Return how often each unit is drawn, (1 + resamples, units); in the first row all once."""
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + resamples, units), dtype=np.uint16)
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(units, size=units), minlength=units)
    return weights


def resampled(weights: Weights, array: FloatArray) -> FloatArray:
    """Return the sums (1 + resamples, ...) of an array (units, ...) as often as they are drawn."""
    flat = array.reshape(len(array), -1)
    rows = range(0, len(weights), _CHUNK)  # in float64 they would take the memory of an array
    found = [weights[row : row + _CHUNK].astype(np.float64) @ flat for row in rows]
    return np.concatenate(found).reshape(len(weights), *array.shape[1:])


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


# ---- standard errors: of numbers that are functions of sums over units, by their derivatives ----


def variances(weights: Weights, array: FloatArray, slopes: FloatArray) -> FloatArray:
    """Return the variance (1 + resamples, parts) of numbers that each follow from one part's sums.

        var = sum_u w_u (sum_v slope_v array_uv)^2

    The squares are multiplied out, so that the units enter as the sums of their products. `array`
    is (units, parts, variables), `slopes` (1 + resamples, parts, variables).
    """
    if array.shape[-1] > 8:  # so many products would fill the memory
        every = ([part] for part in range(array.shape[1]))
        found = [joint_variance(weights, array[:, part], slopes[:, part]) for part in every]
        return np.stack(found, axis=1)
    one, two = np.triu_indices(array.shape[-1])
    moments = resampled(weights, array[..., one] * array[..., two])
    factors = slopes[..., one] * slopes[..., two] * np.where(one == two, 1.0, 2.0)
    return np.einsum("rpt,rpt->rp", factors, moments).clip(0)  # type: ignore[no-any-return]


def joint_variance(weights: Weights, array: FloatArray, slopes: FloatArray) -> FloatArray:
    """Return the variance (1 + resamples,) of a number that follows from all parts' sums."""
    flat, found = array.reshape(len(array), -1).T, np.empty(len(weights))
    for row in range(0, len(weights), _CHUNK):
        part = slice(row, row + _CHUNK)
        influence = slopes[part].reshape(-1, len(flat)) @ flat
        found[part] = np.einsum("ru,ru,ru->r", weights[part], influence, influence)
    return found


def jackknife_variance(left_out: FloatArray) -> FloatArray:
    """Return the variance of numbers from those without each unit, (units, ...).

    It is larger than the derivatives' where a single scene carries much of a bin.
    """
    spread = (left_out - left_out.mean(0)) ** 2
    return (1 - 1 / len(left_out)) * spread.sum(0)  # type: ignore[no-any-return]


def seed_variance(first: FloatArray, second: FloatArray, paired: bool) -> FloatArray:
    """Return the variance of the second mean over seeds minus the first, of (seeds, ...) each."""
    parts = [second - first] if paired else [first, second]
    several = [part.var(0, ddof=1) / len(part) for part in parts if len(part) > 1]
    return sum(several, start=np.zeros(first.shape[1:]))


def _distances(numbers: FloatArray, errors: FloatArray) -> FloatArray:
    """Return how many of its own standard errors every resample is off, (resamples, ...)."""
    tiny = 1e-9 * np.abs(numbers[0]) + np.finfo(float).tiny
    found: FloatArray = np.abs(numbers[1:] - numbers[0]) / np.maximum(errors[1:], tiny)
    return found


def studentised_interval(numbers: FloatArray, errors: FloatArray) -> tuple[float, float] | None:
    """Return the 95 % interval of a number, None where too many resamples lack it.

        estimate -+ c se,   c = 95 % quantile of |resampled - estimate| / its own se

    Numbers and their standard errors are (1 + resamples,), the estimate first. Percentiles of the
    resamples would be too narrow where few scenes carry a squared error: the resamples that lack
    them are small and sure of it.

    Source: the symmetric bootstrap-t; Davison and Hinkley, "Bootstrap Methods and their
    Application", 1997, section 5.2.1; Hall, JRSS B 50, 1988.
    """
    known = np.isfinite(numbers)
    if known.mean() < 1 - MAX_LOST or not np.isfinite(errors[0]):
        return None
    half = float(np.quantile(_distances(numbers, errors)[known[1:]], LEVEL) * errors[0])
    return float(numbers[0]) - half, float(numbers[0]) + half


def simultaneous_band(
    numbers: FloatArray, errors: FloatArray, usable: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return the ends (bins,) of a band that holds in all its bins at once with 95 %.

        estimate_b -+ c se_b,   c = 95 % quantile of max_b |resampled_b - estimate_b| / its own se_b

    Numbers and their standard errors are (1 + resamples, bins), the estimates first. There is no
    band outside ``usable``, and where more than 5 % of the resamples lack the bin.

    Source: the studentised maximum-t bootstrap; Davison and Hinkley, 1997, section 4.2.4.
    """
    width = np.full(numbers.shape[1], np.nan)
    kept = usable & np.isfinite(numbers[0]) & (np.isnan(numbers).mean(0) <= MAX_LOST)
    if kept.any():
        largest = np.nan_to_num(_distances(numbers, errors)[:, kept]).max(1)
        width[kept] = np.quantile(largest, LEVEL) * errors[0, kept]
    return numbers[0] - width, numbers[0] + width
