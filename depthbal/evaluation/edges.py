"""Where depth jumps: whether predicted edges are the true ones, and pixels that float between."""

import torch
from torch import Tensor
from torch.nn import functional as F

from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.terms import EDGE_TERMS, EDGE_THRESHOLDS, MIN_PREDICTION

STRONG = EDGE_THRESHOLDS[-1]
"""Farthest over nearest truth around a pixel, above which it lies at an edge."""

_LEVELS = len(EDGE_THRESHOLDS) + 1


class Edges:
    """The edges of some images' truth, prepared for several predictions.

    Pixels count where all nine of their 3 x 3 neighbourhood are valid, in the bin of their truth.
    """

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
