"""What is compared: the numbers of one method, as measured and in every resample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthbal.evaluation import GROUPS
from depthbal.reports.comparison import Method, Statistic
from depthbal.reports.rebinning import Binning, metric_values
from depthbal.reports.resampling import Units, resampled_sums, seed_weights
from depthbal.reports.results import RunResult

FloatArray = npt.NDArray[np.float64]
GroupKey = tuple[str, str, Statistic]
BinKey = tuple[str, str]


@dataclass(frozen=True)
class Numbers:
    """Metrics per group and bin; with a first axis (resamples,) where they are resampled.

    Attributes:
        groups: (metric, group, statistic) -> () or (resamples,).
        bins: (metric, name of the binning) -> (coarse,) or (resamples, coarse).
    """

    groups: Mapping[GroupKey, FloatArray]
    bins: Mapping[BinKey, FloatArray]


@dataclass(frozen=True)
class Plan:
    """What is computed from every run, and how it is resampled."""

    metrics: tuple[str, ...]
    binnings: tuple[Binning, ...]
    units: Units
    resamples: int
    seed: int


def method_numbers(
    method: Method, results: Sequence[RunResult], plan: Plan
) -> tuple[Numbers, Numbers, FloatArray]:
    """Return a method's numbers (mean over seeds), those of all resamples, and resampled counts.

    Returns:
        Measured, resampled, and (resamples, bins) pixels per bin of every resample.
    """
    weights = seed_weights(method.seeds, plan.resamples, plan.seed)
    equal = np.full(len(method.runs), 1 / len(method.runs))
    measured, resampled = Numbers({}, {}), Numbers({}, {})
    for place, i in enumerate(method.runs):
        run = results[i]
        images = _image_sums(run)
        drawn = resampled_sums(images, plan.units, plan.resamples, plan.seed)
        whole = [array.sum(0, keepdims=True) for array in images]
        one = numbers_of(whole, run, plan)
        many = numbers_of(drawn, run, plan)
        measured = _plus(measured, one, equal[place : place + 1])
        resampled = _plus(resampled, many, weights[:, place])
        counts = drawn[0][..., run.terms.index("count")]
    return measured, resampled, counts


def numbers_of(sums: Sequence[FloatArray], run: RunResult, plan: Plan) -> Numbers:
    """Return the numbers of pooled sums.

    Args:
        sums: (n, bins, terms) of all pixels, and (n, groups, terms) of the headline's pixels.
        run: gives terms, bins and shots.
        plan: what is computed.
    """
    everywhere, pooled = sums
    groups: dict[GroupKey, FloatArray] = {}
    bins: dict[BinKey, FloatArray] = {}
    fine = metric_values(everywhere, run.terms)
    over_groups = metric_values(pooled, run.terms)
    member = run.bins.groups().numpy() > 0
    for metric in plan.metrics:
        for g, group in enumerate(GROUPS):
            groups[metric, group, "bins"] = mean_of_known(fine[metric][:, member[g]])
            groups[metric, group, "pooled"] = over_groups[metric][:, g]
    for binning in plan.binnings:
        coarse = metric_values(binning.members @ everywhere, run.terms)
        bins.update({(metric, binning.name): coarse[metric] for metric in plan.metrics})
    return Numbers(groups, bins)


def mean_of_known(values: FloatArray) -> FloatArray:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is.

    Example:
        >>> mean_of_known(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
        array([ 2., nan])
    """
    known = np.isfinite(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    mean = np.full(np.shape(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _image_sums(run: RunResult) -> list[FloatArray]:
    """Return (images, bins, terms) of all pixels and (images, groups, terms) of the headline's."""
    everywhere = run.sums["all", run.main]
    headline = everywhere if run.headline == "all" else run.sums[run.headline, run.main]
    grouped = np.einsum("gb,ibt->igt", run.bins.groups().numpy(), headline)
    return [everywhere, grouped]


def _plus(total: Numbers, more: Numbers, weight: FloatArray) -> Numbers:
    """Add numbers times a weight per resample to a sum, which starts empty."""
    groups = {key: value * weight for key, value in more.groups.items()}
    bins = {key: value * weight[:, None] for key, value in more.bins.items()}
    if not total.groups:
        return Numbers(groups, bins)
    return Numbers(
        {key: total.groups[key] + value for key, value in groups.items()},
        {key: total.bins[key] + value for key, value in bins.items()},
    )
