"""From sums per bin to the reported numbers: pooled, mean over images, mean over bins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError
from depthbal.evaluation.bins import SHOTS, LabelBins
from depthbal.evaluation.terms import TERMS, metric_values, metrics_of

GROUPS: tuple[str, ...] = ("overall", *SHOTS)
"""All scored bins, and the bins of each shot."""

_IMAGES = 512  # worked on at once: the temporaries do not grow with the test set


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
        sums: (images, bins, terms) from `Scores.sums`.
        bins: the bins they were summed with.
        terms: the names of the last dimension.

    Returns:
        Plain dicts, lists, floats, ints and None; ready for JSON.

    Raises:
        DataError: sums of another shape.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> bins = DepthBins([0.0, 1.0, 2.0], ["many", "few"])
        >>> sums = np.array([[[4.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 9.0]]])
        >>> result = summarise(sums, bins, terms=["count", "squared"])
        >>> result["overall"]["mse"], result["per_bin_mean"]["overall"]["mse"]
        (2.6, 5.0)
        >>> result["medium"]
        {'rmse': None, 'mse': None, 'count': 0, 'images': 0}
    """
    values = torch.as_tensor(sums, dtype=torch.float64).cpu().numpy()
    if values.ndim != 3 or values.shape[1:] != (len(bins), len(terms)):
        expected = f"(images, {len(bins)}, {len(terms)})"
        raise DataError(f"expected sums of shape {expected}, got {values.shape}")
    names, count, groups = metrics_of(terms), list(terms).index("count"), bins.groups()
    total = np.zeros(values.shape[1:])
    of_images, images = np.zeros((len(GROUPS), len(names))), np.zeros(len(GROUPS))
    for start in range(0, len(values), _IMAGES):
        part = values[start : start + _IMAGES]
        grouped = groups @ part
        has = grouped[..., count] > 0
        total += part.sum(0)
        of_images += np.where(has[..., None], metric_values(grouped, terms), 0.0).sum(0)
        images += has.sum(0)
    counts, of_bins = groups @ total[:, count], metric_values(total, terms)
    filled = groups * (total[:, count] > 0)
    with np.errstate(invalid="ignore"):
        over_images = of_images / images[:, None]
        over_bins = (filled @ np.nan_to_num(of_bins)) / filled.sum(1, keepdims=True)

    def row(numbers: npt.NDArray[np.float64], pixels: float) -> dict[str, Any]:
        found = numbers.tolist() if pixels > 0 else [None] * len(names)
        return {**dict(zip(names, found, strict=True)), "count": int(pixels)}

    def rows(found: npt.NDArray[np.float64], label: str, support: Any) -> dict[str, Any]:
        return {
            group: {**row(found[g], counts[g]), label: int(support[g])}
            for g, group in enumerate(GROUPS)
        }

    suffix, bin_images = bins.unit_suffix, (values[..., count] > 0).sum(0)
    return {
        **rows(metric_values(groups @ total, terms), "images", images),
        "bins": [
            {
                "bin": b,
                f"from{suffix}": float(bins.edges[b]),
                f"to{suffix}": float(bins.edges[b + 1]),
                "shot": bins.shots[b],
                "images": int(bin_images[b]),
                **row(of_bins[b], total[b, count]),
            }
            for b in np.flatnonzero(bins.scored).tolist()
        ],
        "per_image_mean": rows(over_images, "images", images),
        "per_bin_mean": rows(over_bins, "bins", filled.sum(1)),
    }
