"""How depth is scored: which pixels, in which bins, averaged over what."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from depthbal.errors import ConfigError
from depthbal.evaluation.balanced_mask import balanced_mask, load_balanced_mask
from depthbal.evaluation.scores import Scores

MIN_DEPTH, MAX_DEPTH = 1e-3, 10.0
"""Metres between which the Eigen protocol's truths count and to which it clamps predictions."""

Crop = Literal["none", "nyu-eigen"]


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
    return _in_crop((target > MIN_DEPTH) & (target < MAX_DEPTH))


def _in_crop(mask: Tensor) -> Tensor:
    """Return a mask (..., height, width) without what lies outside Eigen's crop."""
    box = (..., *eigen_crop(mask.shape[-2], mask.shape[-1]))
    inside = torch.zeros_like(mask)
    inside[box] = mask[box]
    return inside


class DepthProtocol:
    """A way of scoring depth, the same for runs and for anybody's predictions.

    "nyud2_dir" sizes and crops images as for the network; its top-level numbers are over a
    balanced mask, pooled over pixels. "whole" scores uncropped images at the size of the truth's
    file, pooled over pixels. "eigen" is "whole" in Eigen's crop, depths of 1 mm to 10 m,
    predictions clamped to them, mean over images.

    Args:
        name: one of `NAMES`.
        data: a depth data module; its bins, test labels and balanced mask.
        seed: of the balanced mask's draw.
        crop: of whole images, "none" or "nyu-eigen". Default: the protocol's.
        cap: metres between which truths of whole images count and to which predictions are
            clamped. Default: the protocol's.

    Raises:
        ConfigError: an unknown name, a cap that is no range, crop or cap for "nyud2_dir".

    Attributes:
        whole: whether images are scored at the size of the truth's file.
        bins: those of the data, all of them scored by "eigen".
    """

    NAMES = ("nyud2_dir", "eigen", "whole")

    def __init__(
        self,
        name: str,
        data: Any,
        seed: int = 0,
        crop: Crop | None = None,
        cap: tuple[float, float] | None = None,
    ) -> None:
        if name not in self.NAMES:
            raise ConfigError(f"depth is scored by {' or '.join(self.NAMES)}, not by {name!r}")
        self.whole = name != "nyud2_dir"
        if not self.whole and (crop or cap):
            raise ConfigError("crop and cap are of whole images: --protocol whole or eigen")
        if cap and not 0 <= cap[0] < cap[1]:
            raise ConfigError(f"expected a cap of two depths, the smaller one first, got {cap}")
        eigen = name == "eigen"
        self.bins = data.bins().all_scored() if eigen else data.bins()
        self.averaging: Literal["pixels", "images"] = "images" if eigen else "pixels"
        self.crop = crop or ("nyu-eigen" if eigen else "none")
        self.cap = cap or ((MIN_DEPTH, MAX_DEPTH) if eigen else None)
        changed = [f"{self.crop} crop"] * bool(crop)
        changed += [f"cap {cap[0]:g} to {cap[1]:g} m"] if cap else []
        self.facts: dict[str, Any] = {"name": ", ".join([name, *changed])}
        if self.whole:
            words = {"none": "none", "nyu-eigen": "[45:471, 41:601] of 480 x 640, scaled"}
            ends = None if self.cap is None else list(self.cap)
            ranges = {"prediction_range_m": ends, "truth_range_m": ends}
            self.facts |= {"crop": words[self.crop], **ranges}
            return
        depths = _TestLabels(data)
        self._mask = (
            balanced_mask(depths, self.bins, seed)
            if data.balanced_mask_file is None
            else load_balanced_mask(data.balanced_mask_file, depths, self.bins)
        )
        self.facts["mask"] = self._mask.describe()

    def scores(self, readouts: Sequence[str], main: str, facts: Mapping[str, Any]) -> Scores:
        """Return empty scores of some read-outs; `facts` join the protocol."""
        return Scores(
            self.bins,
            readouts,
            main,
            subsets=() if self.whole else ("mask",),
            averaging=self.averaging,
            protocol={**self.facts, **facts},
        )

    def counts(self, target: Tensor) -> Tensor:
        """Return which pixels of (images, 1, h, w) metres count."""
        low, high = self.cap or (0.0, math.inf)
        mask = (target > low) & (target < high)
        return _in_crop(mask) if self.crop == "nyu-eigen" else mask

    def scored(self, preds: Tensor) -> Tensor:
        """Return predictions as they are scored: what is finite is clamped to the cap, if any."""
        if self.cap is None:
            return preds
        return torch.where(preds.isfinite(), preds.clamp(*self.cap), preds)

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
        if self.crop == "nyu-eigen":  # nothing outside counts
            box = (..., *eigen_crop(target.shape[-2], target.shape[-1]))
            maps = {name: preds[box] for name, preds in maps.items()}
            target, mask = target[box], mask[box]
            interval = interval and (interval[0][box], interval[1][box])
        if not self.whole:  # padding has no pixels, whichever mask it gets
            chosen = torch.zeros(target.shape, dtype=torch.bool)
            for row, index in zip(chosen[:, 0], indices.tolist(), strict=True):
                mask_of = torch.from_numpy(self._mask.mask[max(index, 0)])
                row[: len(mask_of), : mask_of.shape[1]] = mask_of  # maps of a batch are padded
            subsets = {"mask": chosen}
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
