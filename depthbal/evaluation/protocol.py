"""One evaluation from predictions to metrics.json and per_image.npz, its protocol written in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthbal.errors import DataError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.label import DEPTH, Label
from depthbal.evaluation.results import EvaluationResults
from depthbal.evaluation.sums import BinnedTruth, check_preds, checked_mask, masked_index
from depthbal.evaluation.terms import TERMS

Interval = tuple[Tensor, Tensor]


class Evaluation(EvaluationResults):
    """Scores several read-outs of the same model, on the balanced mask and on all pixels.

    Labels without a balanced mask (ages) are scored on all samples.

    Args:
        bins: bins and shots.
        readouts: names of the predictions that `update` gets.
        main: the read-out of the top-level numbers.
        protocol: what only the caller knows: "name", "mask" (`BalancedMask.describe()`), data.
        terms: what is summed: `TERMS` for depth, `LABEL_TERMS` for other labels.
        label: what is predicted.
        main_metric: the metric that reports open with.

    Raises:
        ConfigError: `main` is no read-out; `main_metric` does not follow from the terms.

    Example:
        >>> from depthbal.evaluation import DepthBins, balanced_mask
        >>> bins = DepthBins([0, 2, 4], ["many", "few"])
        >>> target = torch.tensor([[[[1.0, 1.5, 3.0, 0.0]]]])
        >>> balanced = torch.tensor([[[[True, False, True, False]]]])
        >>> evaluation = Evaluation(bins, readouts=("raw",), main="raw")
        >>> evaluation.update({"raw": target + 0.5}, target, target > 0, balanced)
        >>> result = evaluation.result()
        >>> result["overall"]["count"], result["all_pixels"]["overall"]["count"]
        (2, 3)
        >>> result["few"]["bias"], result["protocol"]["readout"]
        (0.5, 'raw')
    """

    default_name = "balanced mask"

    def __init__(
        self,
        bins: LabelBins,
        readouts: Sequence[str] = ("raw", "clamped", "mean"),
        main: str = "mean",
        protocol: Mapping[str, Any] | None = None,
        *,
        terms: Sequence[str] = TERMS,
        label: Label = DEPTH,
        main_metric: str = "rmse",
    ) -> None:
        super().__init__(bins, readouts, main, protocol, terms, label, main_metric)

    def update(
        self,
        preds: Mapping[str, Tensor],
        target: Tensor,
        mask: Tensor | None = None,
        balanced: Tensor | None = None,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        interval: Interval | None = None,
    ) -> None:
        """Add a batch of images or samples.

        Args:
            preds: for every read-out (images, ...) in label units, of the target's shape, such as
                (images, 1, height, width) metres or (samples,) years.
            target: the same shape, label units; depth 0 = no depth.
            mask: the same shape, True counts; None counts all pixels with a scored bin.
            balanced: the same shape, True where the balanced mask chose the pixel; None in every
                batch of an evaluation without such a mask.
            names: of the images, for `per_image.npz`. Default: their running numbers.
            groups: what images must be resampled together by (the scene). Default: unknown.
            interval: lower and upper end of the 68.27 % interval, label units, the same shape.

        Raises:
            DataError: a read-out is missing; shapes differ; values under the mask are not finite
                (the images are named); a balanced mask or intervals for some batches only.
        """
        mask = checked_mask(target, mask, names)
        index = masked_index(target, mask, self.bins)
        indices = {"all": index}
        if balanced is not None:
            chosen = checked_mask(target, torch.as_tensor(balanced, device=target.device), names)
            indices = {"mask": index.masked_fill(~(chosen & mask), -1), **indices}
        self._add(preds, target, mask, indices, names, groups, interval)

    def scored(self, preds: Tensor) -> Tensor:
        """Return predictions as they are scored."""
        return preds

    def _add(
        self,
        preds: Mapping[str, Tensor],
        target: Tensor,
        mask: Tensor,
        indices: Mapping[str, Tensor],
        names: Sequence[str] | None,
        groups: Sequence[str] | None,
        interval: Interval | None,
    ) -> None:
        """Sum every read-out over every subset of pixels, given the bin of each pixel."""
        if set(preds) != set(self.readouts):
            raise DataError(f"expected the read-outs {list(self.readouts)}, got {list(preds)}")
        for values in (*preds.values(), *(interval or ())):
            check_preds(values, target, mask, names)
        self._require_as_before(set(indices), interval is not None)
        self._add_names(names, groups, len(target))
        for subset, index in indices.items():
            truth = BinnedTruth(target, index, len(self.bins))
            for readout in self.readouts:
                self._add_sums(subset, readout, truth.sums(preds[readout], self.terms))
                joint = truth.joint(preds[readout], self.bins).cpu().numpy()
                before = self._joint.get((subset, readout), np.zeros((), np.int64))
                self._joint[subset, readout] = before + joint
            if interval is not None:
                counts = truth.coverage(*interval).cpu().numpy()
                self._covered[subset] = self._covered.get(subset, np.zeros(())) + counts

    def _require_as_before(self, subsets: set[str], interval: bool) -> None:
        """Check that a batch brings what the first one brought."""
        if not self.names:
            return
        if subsets != {subset for subset, _ in self._sums}:
            raise DataError("expected a balanced mask for every batch or for none")
        if interval != bool(self._covered):
            raise DataError("expected intervals for every batch or for none")
