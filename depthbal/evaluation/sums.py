"""Float64 sums of the terms per image and bin: the only pass over the pixels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from depthbal.errors import DataError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.terms import TERMS, PixelErrors, pixel_term

# Pixels worked on at once on a CPU: the float64 temporaries then stay in its cache.
_CPU_PIXELS = 1 << 17


def binned_sums(
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None,
    bins: LabelBins,
    terms: Sequence[str] = TERMS,
) -> Tensor:
    """Sum every term over the pixels of each image and bin.

    S[i, b, k] = sum over pixels x of image i with mask(x) and bin(target(x)) = b of term_k(x)

    Args:
        preds: (images, ...) in label units, any floating dtype.
        target: the same shape.
        mask: the same shape, True counts; None counts every pixel.
        bins: pixels whose target has no scored bin are left out.
        terms: names from `TERMS`.

    Returns:
        (images, bins, terms) float64 on the device of the predictions.

    Raises:
        DataError: shapes differ; the mask is not boolean; values under the mask are not finite.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> preds, target = torch.full((2, 1, 4, 4), 2.5), torch.full((2, 1, 4, 4), 2.0)
        >>> sums = binned_sums(preds, target, target > 0, DepthBins.nyud2(), ["count", "error"])
        >>> sums.shape, sums[0, 20].tolist()
        (torch.Size([2, 100, 2]), [16.0, 8.0])
    """
    mask = checked_mask(target, mask)
    truth = BinnedTruth(target, masked_index(target, mask, bins), len(bins))
    check_preds(preds, target, mask)
    return truth.sums(preds, terms)


class BinnedTruth:
    """The counted pixels of a batch of targets, prepared once for several predictions.

    Args:
        target: (images, ...) in label units.
        index: the same shape, the bin of every pixel, -1 where it does not count.
        n_bins: number of bins.
    """

    def __init__(self, target: Tensor, index: Tensor, n_bins: int) -> None:
        self._shape = (len(target), n_bins)
        images = len(target)
        step = images
        if target.device.type == "cpu" and target.numel():
            step = max(1, _CPU_PIXELS // (target.numel() // images))
        self._parts = [
            _Part(target[i : i + step], index[i : i + step], n_bins)
            for i in range(0, images, max(step, 1))
        ]
        self._slices = [slice(i, i + step) for i in range(0, images, max(step, 1))]

    def sums(self, preds: Tensor, terms: Sequence[str]) -> Tensor:
        """Return (images, bins, terms) float64 of checked predictions in the target's shape."""
        images, n_bins = self._shape
        out = torch.empty(images, n_bins, len(terms), dtype=torch.float64, device=preds.device)
        for where, part in zip(self._slices, self._parts, strict=True):
            out[where] = part.sums(preds[where], terms)
        return out

    def joint(self, preds: Tensor, bins: LabelBins) -> Tensor:
        """Return the (bins, bins + 2) `joint_histogram` of checked predictions."""
        out = torch.zeros(len(bins), len(bins) + 2, dtype=torch.int64, device=preds.device)
        for where, part in zip(self._slices, self._parts, strict=True):
            out += part.joint(preds[where], bins)
        return out

    def coverage(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return the (bins, 2) `coverage_counts` of checked interval ends."""
        out = torch.zeros(self._shape[1], 2, dtype=torch.float64, device=lower.device)
        for where, part in zip(self._slices, self._parts, strict=True):
            out += part.coverage(lower[where], upper[where])
        return out


class _Part:
    """As many images as fit the cache."""

    def __init__(self, target: Tensor, index: Tensor, n_bins: int) -> None:
        self._shape = (len(target), n_bins)
        flat = index.reshape(-1)
        self._pixels = (flat >= 0).nonzero().squeeze(1)
        first = torch.arange(len(target), device=target.device) * n_bins
        first = first.repeat_interleave(flat.numel() // max(len(target), 1))
        self._index = flat.index_select(0, self._pixels)
        self._cell = (flat + first).index_select(0, self._pixels)
        self._target = self._counted(target).double()
        self._count = self._add_up(torch.ones_like(self._target))

    def sums(self, preds: Tensor, terms: Sequence[str]) -> Tensor:
        errors = PixelErrors(self._counted(preds).double(), self._target)
        columns = [
            self._count if name == "count" else self._add_up(pixel_term(name, errors))
            for name in terms
        ]
        return torch.stack(columns, dim=1).view(*self._shape, len(terms))

    def joint(self, preds: Tensor, bins: LabelBins) -> Tensor:
        return joint_histogram(self._counted(preds), self._index, bins)

    def coverage(self, lower: Tensor, upper: Tensor) -> Tensor:
        ends = self._counted(lower), self._counted(upper)
        return coverage_counts(*ends, self._target, self._index, self._shape[1])

    def _counted(self, values: Tensor) -> Tensor:
        return values.detach().reshape(-1).index_select(0, self._pixels)

    def _add_up(self, values: Tensor) -> Tensor:
        images, n_bins = self._shape
        return values.new_zeros(images * n_bins).scatter_add_(0, self._cell, values)


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


def one_bin_each(
    errors: Mapping[str, Tensor], index: Tensor, n_bins: int, terms: Sequence[str]
) -> Tensor:
    """Return (samples, bins, terms): the errors of each sample in its one bin, if it has one."""
    ones = torch.ones(len(index), dtype=torch.float64, device=index.device)
    values = torch.stack(
        [ones if term == "count" else errors[term].detach().double() for term in terms], dim=1
    )
    out = values.new_zeros(len(index), n_bins, len(terms))
    counted = (index >= 0).nonzero().squeeze(1)
    out[counted, index[counted]] = values[counted]
    return out


def masked_index(target: Tensor, mask: Tensor, bins: LabelBins) -> Tensor:
    """Return the bin of every target, -1 outside the mask and the scored bins."""
    return bins.index(target).masked_fill_(~mask, -1)


def checked_mask(target: Tensor, mask: Tensor | None, names: Sequence[str] | None = None) -> Tensor:
    """Return the mask as booleans; the target under it is finite, or a DataError says where not."""
    if target.ndim == 0:
        raise DataError("target has no dimension; pass (images, ...), one image is target[None]")
    if mask is None:
        mask = torch.ones_like(target, dtype=torch.bool)
    if mask.shape != target.shape:
        raise DataError(_differ("mask", mask, "target", target, "pass one flag per pixel"))
    if mask.is_floating_point() or mask.is_complex():
        raise DataError(f"the mask must be boolean, True counts; got {mask.dtype}")
    mask = mask.bool()
    _check_finite("target", target, mask, names)
    return mask


def check_preds(
    preds: Tensor, target: Tensor, mask: Tensor, names: Sequence[str] | None = None
) -> None:
    """Raise a DataError unless preds have the target's shape and are finite under the mask."""
    if preds.shape != target.shape:
        cure = (
            "resize the prediction to the target first, e.g. torch.nn.functional.interpolate("
            "preds, size=target.shape[-2:], mode='bilinear', align_corners=True)"
        )
        raise DataError(_differ("preds", preds, "target", target, cure))
    if preds.is_complex():
        raise DataError(f"preds must be real, got {preds.dtype}")
    _check_finite("preds", preds, mask, names)


def _check_finite(name: str, values: Tensor, mask: Tensor, names: Sequence[str] | None) -> None:
    if values.sum(dtype=torch.float64).isfinite():
        return  # one bad value would have spoilt the sum; this costs a tenth of looking at each
    wrong = (mask & ~values.isfinite()).reshape(len(values), -1)
    bad = int(wrong.sum())
    if bad:
        images = wrong.any(1).nonzero().flatten().tolist()
        where = f"images {images} of the batch" if names is None else [names[i] for i in images]
        raise DataError(
            f"{name} hold {bad} values that are not finite (NaN or infinite) of {int(mask.sum())} "
            f"under the mask, in {_shortened(where)}; mask them out or mend the model before it is "
            "scored"
        )


def _shortened(where: str | list[str], most: int = 5) -> str:
    if isinstance(where, str):
        return where
    more = f" and {len(where) - most} more images" if len(where) > most else ""
    return ", ".join(where[:most]) + more


def _differ(first: str, a: Tensor, second: str, b: Tensor, cure: str) -> str:
    return f"{first} {tuple(a.shape)} and {second} {tuple(b.shape)} differ; {cure}"
