"""Metrics per bin, shot and overall with a state of constant size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.scores import GROUPS, metrics_of
from depthbal.evaluation.summary import Totals, report, totals
from depthbal.evaluation.sums import binned_sums
from depthbal.evaluation.terms import LABEL_TERMS, TERMS


class BinnedMetrics(Metric):
    """rmse, mse, mae, gm, bias and count of any scalar label, per bin, per shot and overall.

    The state is float64 sums of (bins x terms) and a few numbers per bin and shot, whatever the
    number of images; over several processes the sums add up.

    Args:
        bins: bins and shots of the label.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        DataError: on update, when shapes differ or values under the mask are not finite.

    Example:
        >>> ages = LabelBins.from_counts(range(4), [150, 50, 4], many_above=100, few_below=20)
        >>> metric = BinnedMetrics(ages)
        >>> metric.update(torch.tensor([0.5, 2.0, 5.0]), torch.tensor([0, 2, 2]))
        >>> result = metric.compute()
        >>> result["overall"]["mae"], result["few"]["mae"], result["per_bin_mean"]["overall"]["mae"]
        (1.1666666666666667, 1.5, 1.0)
        >>> result["medium"]["mae"], result["medium"]["count"]
        (None, 0)
    """

    terms: tuple[str, ...] = LABEL_TERMS
    is_differentiable = False
    full_state_update = False

    sums: Tensor
    bin_images: Tensor
    image_scores: Tensor
    group_images: Tensor

    def __init__(self, bins: LabelBins, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        shapes: dict[str, Sequence[int]] = {
            "sums": (len(bins), len(self.terms)),
            "bin_images": (len(bins),),
            "image_scores": (len(GROUPS), len(metrics_of(self.terms))),
            "group_images": (len(GROUPS),),
        }
        for name, shape in shapes.items():
            zeros = torch.zeros(*shape, dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: (images, ...) in label units; labels of shape (samples,) are one pixel each.
            target: the same shape.
            mask: the same shape, True counts; None counts every pixel.
        """
        sums = binned_sums(preds, target, mask, self.bins, self.terms).to(self.sums.device)
        batch = totals(sums, self.bins, self.terms)
        self.sums += batch.sums
        self.bin_images += batch.bin_images
        self.image_scores += batch.image_scores
        self.group_images += batch.group_images

    def compute(self) -> dict[str, Any]:
        """Return the numbers as `summarise` describes them: plain floats, ints and None."""
        state = Totals(self.sums, self.bin_images, self.image_scores, self.group_images)
        return report(state, self.bins, self.terms)


class BinnedDepthMetrics(BinnedMetrics):
    """`BinnedMetrics` of depth in metres, with abs_rel, log10, silog and delta1 to delta3.

    Predictions below 1e-3 m count as 1e-3 m in log10, silog and the deltas, as they are elsewhere.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> metric = BinnedDepthMetrics(DepthBins.nyud2())
        >>> target = torch.tensor([[[[0.0, 2.0], [4.0, 9.5]]]])
        >>> metric.update(target * 1.5, target, target >= 0.7)
        >>> result = metric.compute()
        >>> result["overall"]["abs_rel"], result["few"]["rmse"], result["many"]["count"]
        (0.5, 4.75, 2)
        >>> [row["bin"] for row in result["bins"] if row["count"]]
        [20, 40, 95]
    """

    terms = TERMS
