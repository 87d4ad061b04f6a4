"""From sums per bin to the reported numbers: pooled, mean over images, mean over bins."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError
from depthbal.evaluation.bins import SHOTS, LabelBins
from depthbal.evaluation.terms import TERMS, metrics_of, scores

GROUPS: tuple[str, ...] = ("overall", *SHOTS)
"""All scored bins, and the bins of each shot."""

_IMAGES = 512  # worked on at once: the temporaries do not grow with the test set


class Totals(NamedTuple):
    """What all reported numbers follow from; its size does not depend on the number of images."""

    sums: Tensor
    """(bins, terms) summed over images."""
    bin_images: Tensor
    """(bins,) images with a pixel in the bin."""
    image_scores: Tensor
    """(groups, metrics) metrics of one image, summed over the images with a pixel in the group."""
    group_images: Tensor
    """(groups,) how many images those are."""


def totals(sums: Tensor, bins: LabelBins, terms: Sequence[str]) -> Totals:
    """Reduce (images, bins, terms) sums over the images; totals of batches add up."""
    count = list(terms).index("count")
    grouped = torch.einsum("gb,ibt->igt", bins.groups().to(sums.device), sums)
    present = grouped[..., count] > 0
    per_image = scores(grouped, terms).masked_fill_(~present[..., None], 0.0)
    return Totals(
        sums=sums.sum(0),
        bin_images=(sums[..., count] > 0).sum(0).double(),
        image_scores=per_image.sum(0),
        group_images=present.sum(0).double(),
    )


def summarise(
    sums: Tensor | npt.NDArray[np.float64], bins: LabelBins, terms: Sequence[str] = TERMS
) -> dict[str, Any]:
    """Turn the sums of all images into the reported numbers.

    - "overall", "many", "medium", "few": pooled over the pixels of the group's bins
    - "bins": one row per scored bin, pooled over its pixels
    - "per_image_mean": per group, the mean over images of each image's metric
    - "per_bin_mean": per group, the mean over the non-empty bins of each bin's metric

    A group or bin without pixels has None for every metric and count 0.

    Args:
        sums: (images, bins, terms) from `binned_sums`, or from `Scores.sums`.
        bins: the bins they were summed with.
        terms: the names of the last dimension.

    Returns:
        Plain dicts, lists, floats, ints and None; ready for JSON.

    Raises:
        DataError: sums of another shape.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> bins = DepthBins([0.0, 1.0, 2.0], ["many", "few"])
        >>> sums = torch.tensor([[[4.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 9.0]]])
        >>> result = summarise(sums, bins, terms=["count", "squared"])
        >>> result["overall"]["mse"], result["per_bin_mean"]["overall"]["mse"]
        (2.6, 5.0)
        >>> result["medium"]
        {'rmse': None, 'mse': None, 'count': 0, 'images': 0}
    """
    values = torch.as_tensor(sums, dtype=torch.float64)
    if values.ndim != 3 or values.shape[1:] != (len(bins), len(terms)):
        expected = f"(images, {len(bins)}, {len(terms)})"
        raise DataError(f"expected sums of shape {expected}, got {tuple(values.shape)}")
    # at least one part, so that no image gives empty totals
    parts = [
        totals(values[i : i + _IMAGES], bins, terms) for i in range(0, max(len(values), 1), _IMAGES)
    ]
    return report(Totals(*map(sum, zip(*parts, strict=True))), bins, terms)  # type: ignore[arg-type]


def report(total: Totals, bins: LabelBins, terms: Sequence[str]) -> dict[str, Any]:
    """Write totals as the dictionary that `summarise` describes."""
    total = Totals(*(part.detach().cpu() for part in total))
    names = metrics_of(terms)
    groups = bins.groups()
    column = list(terms).index("count")
    counts = groups @ total.sums[:, column]
    pooled = scores(groups @ total.sums, terms)
    of_bins = scores(total.sums, terms)
    filled = groups * (total.sums[:, column] > 0)
    over_bins = (filled @ of_bins.nan_to_num(0.0)) / filled.sum(1, keepdim=True)
    over_images = total.image_scores / total.group_images[:, None]
    images, n_filled = total.group_images, filled.sum(1)

    def rows(values: Tensor, label: str, support: Tensor) -> dict[str, Any]:
        return {
            group: {**_row(names, values[g], counts[g]), label: int(support[g])}
            for g, group in enumerate(GROUPS)
        }

    return {
        **rows(pooled, "images", images),
        "bins": _bin_rows(names, of_bins, total, column, bins),
        "per_image_mean": rows(over_images, "images", images),
        "per_bin_mean": rows(over_bins, "bins", n_filled),
    }


def _row(names: Sequence[str], values: Tensor, count: Tensor) -> dict[str, Any]:
    numbers = values.tolist() if count > 0 else [None] * len(names)
    return {**dict(zip(names, numbers, strict=True)), "count": int(count)}


def _bin_rows(
    names: Sequence[str], values: Tensor, total: Totals, column: int, bins: LabelBins
) -> list[dict[str, Any]]:
    suffix = bins.unit_suffix
    return [
        {
            "bin": b,
            f"from{suffix}": float(bins.edges[b]),
            f"to{suffix}": float(bins.edges[b + 1]),
            "shot": bins.shots[b],
            "images": int(total.bin_images[b]),
            **_row(names, values[b], total.sums[b, column]),
        }
        for b in np.flatnonzero(bins.scored).tolist()
    ]
