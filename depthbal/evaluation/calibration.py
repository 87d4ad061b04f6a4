"""Calibration: how often the truth lies in the interval that sigma promises."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.scores import GROUPS

LEVEL = 0.6827
"""Nominal coverage: that of one standard deviation to either side of a normal's mean."""

INTERVAL = (
    "central 68.27 % interval of the normal N(p, sigma^2) truncated to the label range where there "
    "is one; p the raw prediction, sigma the noise scale"
)


def coverage_counts(
    lower: Tensor, upper: Tensor, target: Tensor, index: Tensor, n_bins: int
) -> Tensor:
    """Count per bin how many truths lie in their interval, and how many there are.

    Args:
        lower: lower ends of any shape, label units.
        upper: upper ends, the same shape.
        target: truths, the same shape.
        index: the bin of every truth, -1 where it does not count.
        n_bins: number of bins.

    Returns:
        (bins, 2) float64: covered, counted.

    Example:
        >>> target, index = torch.tensor([1.0, 2.0, 2.5, 9.0]), torch.tensor([0, 1, 1, -1])
        >>> coverage_counts(target - 1, torch.full((4,), 2.0), target, index, 2).tolist()
        [[1.0, 1.0], [1.0, 2.0]]
    """
    inside = (lower <= target) & (target <= upper)
    cell = (index * 2).add_(inside).flatten().add_(2)
    missed, covered = torch.bincount(cell, minlength=2 * n_bins + 2).view(-1, 2)[1:].unbind(1)
    return torch.stack([covered, missed + covered], dim=1).double()


def calibration(counts: npt.NDArray[np.float64], bins: LabelBins) -> dict[str, Any]:
    """Return coverage and count of overall, many, medium and few, pooled; None where empty.

    Args:
        counts: (bins, 2) from `coverage_counts`, summed over batches.
        bins: their bins.

    Example:
        >>> bins = LabelBins([0, 1, 2], ["many", "few"])
        >>> calibration(np.array([[6.0, 10.0], [0.0, 0.0]]), bins)["many"]
        {'coverage': 0.6, 'count': 10}
    """
    covered, counted = (bins.groups().numpy() @ counts).T
    return {
        group: {
            "coverage": float(covered[g] / counted[g]) if counted[g] else None,
            "count": int(counted[g]),
        }
        for g, group in enumerate(GROUPS)
    }
