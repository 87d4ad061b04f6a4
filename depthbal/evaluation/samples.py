"""The evaluation of errors that are computed elsewhere, such as joint errors of human meshes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.label import Label
from depthbal.evaluation.results import EvaluationResults
from depthbal.evaluation.scores import metrics_of
from depthbal.evaluation.sums import check_preds, checked_mask
from depthbal.evaluation.terms import LABEL_TERMS, TERMS

_SAMPLES = 4096  # whose dense sums are held at once


class SampleEvaluation(EvaluationResults):
    """Averages errors of samples per bin, shot and overall of a scalar label.

    metrics.json and per_image.npz have the structure of `Evaluation`'s; every kind of error is a
    metric: its mean. There are no read-outs, no balanced mask and no joint histogram.

    Args:
        bins: bins and shots of the label.
        errors: names of the errors that `update` gets.
        protocol: what only the caller knows: "name", data.
        label: by what the samples are binned.
        main_metric: the error that reports open with. Default: the first.

    Raises:
        ConfigError: no error, a name that is taken, or an unknown `main_metric`.

    Example:
        >>> bins = LabelBins([0, 100, 200], ["many", "few"])
        >>> label = Label("distance to the mean pose", "mm")
        >>> evaluation = SampleEvaluation(bins, ("mpjpe",), {"name": "3dpw"}, label, "mpjpe")
        >>> distance = torch.tensor([10.0, 20.0, 150.0])
        >>> evaluation.update({"mpjpe": torch.tensor([60.0, 80.0, 120.0])}, distance)
        >>> result = evaluation.result()
        >>> result["many"]["mpjpe"], result["per_bin_mean"]["overall"]["mpjpe"]
        (70.0, 95.0)
    """

    def __init__(
        self,
        bins: LabelBins,
        errors: Sequence[str],
        protocol: Mapping[str, Any] | None,
        label: Label,
        main_metric: str | None = None,
    ) -> None:
        taken = {*TERMS, *LABEL_TERMS, *metrics_of(TERMS), *metrics_of(LABEL_TERMS)}
        if not errors or taken & set(errors):
            raise ConfigError(
                f"expected one or more names of errors that are not among {sorted(taken)}, got "
                f"{list(errors)}"
            )
        self.errors = tuple(errors)
        main_metric = errors[0] if main_metric is None else main_metric
        terms = ("count", *errors)
        super().__init__(bins, ("",), "", protocol, terms, label, main_metric)

    def update(
        self,
        errors: Mapping[str, Tensor],
        label: Tensor,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Add a batch of samples.

        Args:
            errors: for every name (samples,), in the unit that the name stands for.
            label: (samples,) in label units.
            names: of the samples, for `per_image.npz`. Default: their running numbers.
            groups: what samples must be resampled together by (the sequence). Default: unknown.

        Raises:
            DataError: an error is missing; shapes differ; values are not finite (the samples are
                named).
        """
        if set(errors) != set(self.errors):
            raise DataError(f"expected the errors {list(self.errors)}, got {list(errors)}")
        if label.ndim != 1:
            raise DataError(f"expected a label of shape (samples,), got {tuple(label.shape)}")
        mask = checked_mask(label, None, names)
        for values in errors.values():
            check_preds(values, label, mask, names)
        self._add_names(names, groups, len(label))
        index = self.bins.index(label)
        ones = torch.ones(len(label), dtype=torch.float64, device=label.device)
        values = torch.stack([ones, *(errors[name].detach().double() for name in self.errors)], 1)
        for i in range(0, max(len(label), 1), _SAMPLES):
            part = _one_bin_each(values[i : i + _SAMPLES], index[i : i + _SAMPLES], len(self.bins))
            self._add_sums("all", "", part)


def _one_bin_each(values: Tensor, index: Tensor, n_bins: int) -> Tensor:
    """Return (samples, bins, terms): the values of each sample in its bin, if it has one."""
    out = values.new_zeros(len(values), n_bins, values.shape[1])
    counted = (index >= 0).nonzero().squeeze(1)
    out[counted, index[counted]] = values[counted]
    return out
