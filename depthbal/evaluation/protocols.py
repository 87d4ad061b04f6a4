"""How depth is scored: which pixels, in which bins, averaged over what."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthbal.errors import ConfigError
from depthbal.evaluation.balanced_mask import balanced_mask, load_balanced_mask
from depthbal.evaluation.scores import Scores

MIN_DEPTH, MAX_DEPTH = 1e-3, 10.0
"""Metres between which the Eigen protocol's truths count and to which it clamps predictions."""

EIGEN = {
    "name": "eigen",
    "crop": "[45:471, 41:601] of 480 x 640, scaled",
    "prediction_range_m": [MIN_DEPTH, MAX_DEPTH],
    "truth_range_m": [MIN_DEPTH, MAX_DEPTH],
}


def eigen_crop(height: int, width: int) -> tuple[slice, slice]:
    """Return rows and columns of the crop: [45:471, 41:601] of 480 x 640, scaled to other sizes.

    Source: Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale
    Deep Network", NIPS 2014, as evaluated in the works that follow it.

    Example:
        >>> eigen_crop(480, 640)
        (slice(45, 471, None), slice(41, 601, None))
        >>> eigen_crop(240, 320)
        (slice(23, 236, None), slice(21, 301, None))
    """
    # halves up, where Python's `round` would send them to even numbers
    rows = ((2 * pixel * height + 480) // 960 for pixel in (45, 471))
    columns = ((2 * pixel * width + 640) // 1280 for pixel in (41, 601))
    return slice(*rows), slice(*columns)


def eigen_mask(target: Tensor) -> Tensor:
    """Return which pixels of (images, 1, height, width) metres the Eigen protocol scores.

    Example:
        >>> eigen_mask(torch.full((1, 1, 48, 64), 5.0)).sum().item()
        2352
    """
    mask = torch.zeros_like(target, dtype=torch.bool)
    rows, columns = eigen_crop(target.shape[-2], target.shape[-1])
    mask[..., rows, columns] = True
    return mask & (target > MIN_DEPTH) & (target < MAX_DEPTH)


class DepthProtocol:
    """A way of scoring depth, the same for runs and for anybody's predictions.

    Args:
        name: "nyud2_dir" (top-level numbers over a balanced mask, pooled over pixels; images sized
            as for the network) or "eigen" (Eigen's crop of the whole image, depths of 1 mm to 10 m,
            predictions clamped to them, mean over images).
        data: a depth data module; its bins, test labels and balanced mask.
        seed: of the balanced mask's draw.

    Raises:
        ConfigError: an unknown name.

    Attributes:
        whole: whether images are scored uncropped at the size of the truth's file.
        bins: those of the data, all of them scored by "eigen".
    """

    NAMES = ("nyud2_dir", "eigen")

    def __init__(self, name: str, data: Any, seed: int = 0) -> None:
        if name not in self.NAMES:
            raise ConfigError(f"depth is scored by {' or '.join(self.NAMES)}, not by {name!r}")
        self.name, self.whole = name, name == "eigen"
        self.bins = data.bins().all_scored() if self.whole else data.bins()
        if self.whole:
            self.facts: dict[str, Any] = dict(EIGEN)
        else:
            depths = _TestLabels(data)
            self._mask = (
                balanced_mask(depths, self.bins, seed)
                if data.balanced_mask_file is None
                else load_balanced_mask(data.balanced_mask_file, depths, self.bins)
            )
            self.facts = {"name": name, "mask": self._mask.describe()}

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the scored bins in metres."""
        scored = np.flatnonzero(self.bins.scored)
        return float(self.bins.edges[scored[0]]), float(self.bins.edges[scored[-1] + 1])

    def scores(self, readouts: Sequence[str], main: str, facts: Mapping[str, Any]) -> Scores:
        """Return empty scores of some read-outs; `facts` join the protocol."""
        return Scores(
            self.bins,
            readouts,
            main,
            subsets=() if self.whole else ("mask",),
            averaging="images" if self.whole else "pixels",
            protocol={**self.facts, **facts},
        )

    def counts(self, target: Tensor) -> Tensor:
        """Return which pixels of (images, 1, h, w) metres count."""
        return eigen_mask(target) if self.whole else target > 0

    def scored(self, preds: Tensor) -> Tensor:
        """Return predictions as they are scored: "eigen" clamps what is finite."""
        if not self.whole:
            return preds
        return torch.where(preds.isfinite(), preds.clamp(MIN_DEPTH, MAX_DEPTH), preds)

    def update(
        self,
        scores: Scores,
        maps: Mapping[str, Tensor],
        target: Tensor,
        mask: Tensor,
        names: Sequence[str],
        groups: Sequence[str],
        indices: Tensor,
        interval: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Add a batch, (images, 1, h, w) metres, `mask` from `counts`; as for `Scores.update`."""
        subsets = {}
        if not self.whole:  # padding has no pixels, whichever mask it gets
            chosen = [self._mask.mask[max(index, 0)] for index in indices.tolist()]
            subsets = {"mask": torch.from_numpy(np.stack(chosen)).unsqueeze(1)}
        scores.update(
            {name: self.scored(preds) for name, preds in maps.items()},
            target,
            mask,
            names,
            groups,
            interval,
            subsets,
            indices,
        )


class _TestLabels(Iterable[Tensor]):
    """The test split's depth maps, read again at every iteration."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.data.labels("test"))
