"""Joint histograms: where on the label axis predictions land, given where the truth lies."""

import torch
from torch import Tensor

from depthbal.evaluation.bins import LabelBins


def joint_histogram(preds: Tensor, index: Tensor, bins: LabelBins) -> Tensor:
    """Count labels per bin of the truth and bin of the prediction.

    J[b, c] = number of labels with bin(truth) = b and prediction in column c

    Args:
        preds: (n,) in label units, finite.
        index: (n,) the bin of each truth, none of them -1.
        bins: their bins.

    Returns:
        (bins, bins + 2) int64. Columns: predictions below the first edge, in each bin (scored or
        not), beyond the last edge.

    Example:
        >>> bins = LabelBins([0, 1, 2])
        >>> preds, target = torch.tensor([-0.5, 0.5, 1.5, 7.0]), torch.tensor([0.2, 0.2, 1.2, 9.0])
        >>> joint_histogram(preds, bins.index(target), bins).tolist()
        [[1, 1, 0, 0], [0, 0, 1, 1]]
    """
    columns = len(bins) + 2
    cell = bins.column(preds).add_(index, alpha=columns)
    return torch.bincount(cell, minlength=len(bins) * columns).view(len(bins), columns)
