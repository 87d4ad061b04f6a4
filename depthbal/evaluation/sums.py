"""Float64 sums of the terms per image and bin, of pixels and of edges between them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from depthbal.errors import DataError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.terms import EDGE_TERMS, EDGE_THRESHOLDS, MIN_PREDICTION, term_values

# Pixels worked on at once on a CPU: the float64 temporaries of the terms then stay in its cache.
_CPU_PIXELS = 1 << 17

STRONG = EDGE_THRESHOLDS[-1]
"""Farthest over nearest truth around a pixel, above which it lies at an edge."""
_LEVELS = len(EDGE_THRESHOLDS) + 1


def chunks(target: Tensor) -> Iterator[slice]:
    """Cut a batch (images, ...) into as many images as fit the cache; a GPU takes all at once."""
    images = max(len(target), 1)
    step = images
    if target.device.type == "cpu" and target.numel():
        step = max(1, _CPU_PIXELS // (target.numel() // images))
    return (slice(i, i + step) for i in range(0, images, step))


class Pixels:
    """The pixels of some images with an index other than -1, prepared for several predictions."""

    def __init__(self, target: Tensor, index: Tensor, bins: LabelBins) -> None:
        self.bins, self.images = bins, len(target)
        first = torch.arange(len(target), device=index.device) * len(bins)
        first = first.view(-1, *[1] * (index.ndim - 1))
        self.where = (index.reshape(-1) >= 0).nonzero().squeeze(1)
        self.index = self._counted(index)
        self.cell = self._counted(index + first)
        self.target = self._counted(target).double()
        self.count = self._add_up(torch.ones_like(self.target))

    def sums(self, preds: Tensor, terms: Sequence[str]) -> Tensor:
        """Return (images, bins, terms) of checked predictions in the target's shape."""
        values = term_values(terms, self._counted(preds).double(), self.target)
        sums = [
            self.count if name == "count" else self._add_up(value)
            for name, value in zip(terms, values, strict=True)
        ]
        return torch.stack(sums, dim=1).view(self.images, len(self.bins), len(terms))

    def joint(self, preds: Tensor) -> Tensor:
        """Return (bins, bins + 2) int64: rows by the truth's bin, columns by `LabelBins.column`."""
        shape = len(self.bins), len(self.bins) + 2
        cell = self.bins.column(self._counted(preds)).add_(self.index, alpha=shape[1])
        return torch.bincount(cell, minlength=shape[0] * shape[1]).view(shape)

    def coverage(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return (bins, 2) float64: truths inside their interval, its ends included, and all."""
        inside = (self._counted(lower) <= self.target) & (self.target <= self._counted(upper))
        found = torch.bincount(self.index * 2 + inside, minlength=2 * len(self.bins)).view(-1, 2)
        return torch.stack([found[:, 1], found.sum(1)], dim=1).double()

    def _counted(self, values: Tensor) -> Tensor:
        return values.detach().reshape(-1).index_select(0, self.where)

    def _add_up(self, values: Tensor) -> Tensor:
        cells = values.new_zeros(self.images * len(self.bins))
        return cells.scatter_add_(0, self.cell, values)


class Edges:
    """Where the truth jumps, at pixels whose 3 x 3 neighbourhood is valid, in their truth's bin."""

    def __init__(self, target: Tensor, mask: Tensor, index: Tensor, bins: LabelBins) -> None:
        height, width = target.shape[-2:]
        maps = target.reshape(-1, 1, height, width)
        holes = F.pad((~mask).reshape(maps.shape).float(), (1, 1, 1, 1), value=1.0)
        inner = (F.max_pool2d(holes, 3, stride=1) == 0) & (index.reshape(maps.shape) >= 0)
        self.pixels, self.steps = inner.flatten().nonzero().squeeze(1), (1, -1, width, -width)
        self.cells, self.shape = len(target) * len(bins), (len(target), len(bins), len(EDGE_TERMS))
        self.cell = self.pixels // (height * width) * len(bins) + index.flatten()[self.pixels]
        self.levels = self._levels(target)
        near, far = (
            sign * F.max_pool2d(sign * maps, 3, 1, padding=1).flatten()[self.pixels].double()
            for sign in (-1, 1)
        )
        self.near, self.width = near.log(), (far / near).log()
        # what is itself between two surfaces, on a slope, is at no edge
        self.strong = (far > STRONG * near) & ~self._between(target)

    def sums(self, preds: Tensor) -> Tensor:
        """Return (images, bins, EDGE_TERMS) float64 of predictions in the target's shape."""
        levels = self._levels(preds)
        hits = self._counts(torch.minimum(levels, self.levels))
        ends = self._counts(levels) + self._counts(self.levels)
        flying = self.strong & self._between(preds)
        pixels = [torch.bincount(self.cell[x], minlength=self.cells) for x in (self.strong, flying)]
        return torch.cat([hits, ends, torch.stack(pixels, 1)], dim=1).reshape(self.shape).double()

    def _levels(self, depth: Tensor) -> Tensor:
        """Return how many thresholds each of four neighbours is farther by, (4, pixels)."""
        flat = depth.detach().flatten()
        own, others = flat[self.pixels], [flat[self.pixels + step] for step in self.steps]
        ratio = torch.stack(others).double().clamp_(min=MIN_PREDICTION)
        ratio /= own.double().clamp_(min=MIN_PREDICTION)
        return torch.bucketize(ratio, ratio.new_tensor(EDGE_THRESHOLDS))

    def _counts(self, levels: Tensor) -> Tensor:
        """Return how many neighbours reach just each level from 1 on, (cells, levels)."""
        far = levels > 0  # few
        place = self.cell.expand_as(levels)[far] * _LEVELS + levels[far]
        found = torch.bincount(place, minlength=self.cells * _LEVELS)
        return found.view(self.cells, _LEVELS)[:, 1:]

    def _between(self, depth: Tensor) -> Tensor:
        """Return where depth is in the middle half between the nearest and farthest, by ratio."""
        own = depth.detach().flatten()[self.pixels].double().clamp_(min=MIN_PREDICTION).log_()
        share = (own - self.near) / self.width
        return (share > 0.25) & (share < 0.75)


def checked_mask(target: Tensor, mask: Tensor | None, names: Sequence[str] | None = None) -> Tensor:
    """Return the mask as booleans; the target under it is finite, or a DataError says where not."""
    if mask is None:
        mask = torch.ones_like(target, dtype=torch.bool)
    if mask.shape != target.shape:
        raise DataError(
            f"mask {tuple(mask.shape)} and target {tuple(target.shape)} differ; pass one flag per "
            "pixel"
        )
    if mask.is_floating_point():
        raise DataError(f"the mask must be boolean, True counts; got {mask.dtype}")
    mask = mask.bool()
    _check_finite("target", target, mask, names)
    return mask


def check_preds(
    preds: Tensor, target: Tensor, mask: Tensor, names: Sequence[str] | None = None
) -> None:
    """Raise a DataError unless preds have the target's shape and are finite under the mask."""
    if preds.shape != target.shape:
        raise DataError(
            f"preds {tuple(preds.shape)} and target {tuple(target.shape)} differ; resize the "
            "prediction to the target first, e.g. torch.nn.functional.interpolate(preds, "
            "size=target.shape[-2:], mode='bilinear', align_corners=True)"
        )
    _check_finite("preds", preds, mask, names)


def _check_finite(name: str, values: Tensor, mask: Tensor, names: Sequence[str] | None) -> None:
    if values.sum(dtype=torch.float64).isfinite():
        return  # one bad value would have spoilt the sum; this costs a tenth of looking at each
    wrong = (mask & ~values.isfinite()).reshape(len(values), -1)
    if bad := int(wrong.sum()):
        images = wrong.any(1).nonzero().flatten().tolist()
        shown = ", ".join(
            f"image {i} of the batch" if names is None else names[i] for i in images[:5]
        )
        where = shown + (f" and {len(images) - 5} more images" if len(images) > 5 else "")
        raise DataError(
            f"{name} hold {bad} values that are not finite (NaN or infinite) of {int(mask.sum())} "
            f"under the mask, in {where}; mask them out or mend the model before it is scored"
        )
