"""How depth is scored: which pixels, in which bins, averaged over what."""

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation.alignment import ALIGNMENTS, Alignment, align
from depthbal.evaluation.balanced_mask import balanced_mask, load_balanced_mask
from depthbal.evaluation.bins import DEPTH, Label
from depthbal.evaluation.scores import Scores
from depthbal.evaluation.terms import EDGE_TERMS, EDGE_WORDS, LABEL_TERMS, TERMS

Crop = Literal["none", "nyu-eigen", "kitti-garg", "kitti-eigen", "kb", "kb-garg", "kb-eigen"]
Cap = tuple[float, float]
KITTI_CROP = (352, 1216)
"""Of KITTI's depth benchmark, "kb": the lowest rows, the columns in the middle."""
_GARG = ((40810811, 99189189, 10**8), (3594771, 96405229, 10**8), 0)
_EIGEN = ((33243240, 91351351, 10**8), (3594770, 96405229, 10**8), 0)
CROPS: dict[Crop, tuple[tuple[int, int, int], tuple[int, int, int], int]] = {
    "none": ((0, 1, 1), (0, 1, 1), 0),
    "nyu-eigen": ((45, 471, 480), (41, 601, 640), 1),
    "kitti-garg": _GARG,
    "kitti-eigen": _EIGEN,
    "kb": ((0, 1, 1), (0, 1, 1), 0),
    "kb-garg": _GARG,
    "kb-eigen": _EIGEN,
}
"""First and last row and the height they belong to, the same of columns, 1 to round, 0 to cut; of
"kb" and what begins with it inside `KITTI_CROP`."""
_WORDS: dict[str, str] = {
    "nyu-eigen": "[45:471, 41:601] of 480 x 640, scaled",
    "kitti-garg": "Garg's shares of the whole picture",
    "kitti-eigen": "Eigen's shares of the whole picture",
    "kb": "the lowest 352 rows, the 1216 columns in the middle",
    "kb-garg": "Garg's shares of the benchmark's 352 x 1216",
    "kb-eigen": "Eigen's shares of the benchmark's 352 x 1216",
}
_SIZES = {"nyu": (480, 640), "kitti": (375, 1242)}
MIN_PIXELS = 10
"""Means over images leave out images with fewer pixels that count."""


def eigen_crop(height: int, width: int, crop: Crop = "nyu-eigen") -> tuple[slice, slice]:
    """Return rows and columns of a crop: for NYU [45:471, 41:601] of 480 x 640, scaled.

    Garg's and Eigen's shares of KITTI's pictures are taken of the whole picture ("kitti-garg",
    "kitti-eigen"), or inside the depth benchmark's crop of 352 x 1216 ("kb-garg", "kb-eigen"):
    other pixels under what is often one name.

    Source: Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale
    Deep Network", NIPS 2014; for KITTI also Garg et al., "Unsupervised CNN for Single View Depth
    Estimation", ECCV 2016; each as evaluated in the works that follow it.

    Raises:
        DataError: "kb" of a picture that is smaller than it.

    Example:
        >>> eigen_crop(480, 640)
        (slice(45, 471, None), slice(41, 601, None))
        >>> eigen_crop(240, 320)
        (slice(23, 236, None), slice(21, 301, None))
        >>> eigen_crop(375, 1242, "kitti-garg")
        (slice(153, 371, None), slice(44, 1197, None))
        >>> eigen_crop(375, 1242, "kb-garg")
        (slice(166, 372, None), slice(56, 1185, None))
    """
    *ends, rounded = CROPS[crop]
    size, starts = (height, width), (0, 0)
    if crop.startswith("kb"):
        size, starts = KITTI_CROP, (height - KITTI_CROP[0], (width - KITTI_CROP[1]) // 2)
        if min(starts) < 0:
            raise DataError(
                f"the {crop} crop is of pictures of at least 352 x 1216, this one is {height} x "
                f"{width}; give --crop none"
            )
    rows, columns = (
        # halves up, where Python's `round` would send them to even numbers
        slice(*(at + (2 * end * side + rounded * of) // (2 * of) for end in (first, last)))
        for side, at, (first, last, of) in zip(size, starts, ends, strict=True)
    )
    return rows, columns


class DepthProtocol:
    """A way of scoring depth, the same for runs and for anybody's predictions.

    "nyud2_dir" sizes and crops images as for the network, its top-level numbers are over a balanced
    mask. "whole" scores images at the size of the truth's file, pooled over pixels; "eigen" and
    "kitti" in a crop, means over images, predictions clamped to a cap. `alignments` come before it.
    """

    WHOLE: Mapping[str, tuple[Crop, Cap | None]] = {
        "eigen": ("nyu-eigen", (1e-3, 10.0)),
        "kitti": ("kitti-garg", (1e-3, 80.0)),
        "whole": ("none", None),
    }
    NAMES = ("nyud2_dir", *WHOLE)

    def __init__(
        self,
        name: str,
        data: Any,
        seed: int = 0,
        crop: Crop | None = None,
        cap: Cap | None = None,
        edges: bool = False,
        alignments: Sequence[Alignment] = ("none",),
    ) -> None:
        if name not in self.NAMES:
            raise ConfigError(f"depth is scored by {' or '.join(self.NAMES)}, not by {name!r}")
        self.whole = name in self.WHOLE
        if not self.whole and (crop or cap):
            raise ConfigError(
                f"crop and cap are of whole images: --protocol {' or '.join(self.WHOLE)}"
            )
        if crop not in (None, *CROPS):
            raise ConfigError(f"unknown crop {crop!r}; known: {list(CROPS)}")
        if not alignments or set(alignments) - set(ALIGNMENTS):
            raise ConfigError(f"unknown alignments {list(alignments)}; known: {list(ALIGNMENTS)}")
        if cap and not 0 <= cap[0] < cap[1]:
            raise ConfigError(f"expected a cap of two depths, the smaller one first, got {cap}")
        own_crop, own_cap = self.WHOLE.get(name, ("none", None))
        self.bins = data.bins() if own_cap is None else data.bins().all_scored()
        self.label: Label = getattr(data, "label", DEPTH)
        zero = getattr(data, "zero_is_label", False)  # which no ratio or logarithm takes
        self.none_below = -math.inf if zero else 0.0
        self.averaging: Literal["pixels", "images"] = "images" if own_cap else "pixels"
        self.crop, self.cap = crop or own_crop, cap or own_cap
        self.alignments, self.base = alignments, ""  # of which read-out, `scores` is told
        if cap is None:
            self._require_suitable(name)
        changed = [f"{self.crop} crop"] * bool(crop)
        changed += [f"cap {cap[0]:g} to {cap[1]:g} m"] if cap else []
        named = name if self.whole or self.label.name == "depth" else "balanced mask"
        self.facts: dict[str, Any] = {"name": ", ".join([named, *changed])}
        self.terms = LABEL_TERMS if zero else TERMS
        if zero and (edges or own_cap or set(alignments) != {"none"}):
            raise ConfigError(
                f"0 is a {self.label.name}: --protocol eigen and kitti, --align and --edges are of "
                "depth, whose ratios mean something; give --protocol whole"
            )
        if edges:
            self.terms, self.facts["edges"] = (*TERMS, *EDGE_TERMS), EDGE_WORDS
        if self.whole:
            ends = None if self.cap is None else list(self.cap)
            ranges = {"prediction_range_m": ends, "truth_range_m": ends}
            self.facts |= {"crop": self.crop, **ranges}
            if self.crop in _WORDS:
                self.facts["crop_rule"] = _WORDS[self.crop]
            if self.averaging == "images":
                self.facts["min_pixels_of_an_image"] = MIN_PIXELS
            return
        depths = _TestLabels(data)
        self._mask = (
            balanced_mask(depths, self.bins, seed)
            if data.balanced_mask_file is None
            else load_balanced_mask(data.balanced_mask_file, depths, self.bins)
        )
        self.facts["mask"] = self._mask.describe()

    def _require_suitable(self, name: str) -> None:
        """Refuse a protocol that would leave out most depths, or crop by another camera."""
        far = self.bins.ends[1]
        fits = [n for n, (_, cap) in self.WHOLE.items() if not cap or cap[1] / 2 <= far <= cap[1]]
        if self.cap and name not in fits:
            raise ConfigError(
                f"--protocol {name} is of depths to {self.cap[1]:g} m, these data end at {far:g} "
                f"m; give --protocol {' or '.join(fits)}"
            )

    @property
    def aligned(self) -> dict[str, Alignment]:
        """The alignments by their read-outs, the main one first."""
        return {self.base if a == "none" else f"{a}_aligned": a for a in self.alignments}

    def scores(
        self, readouts: Sequence[str], base: str, facts: Mapping[str, Any], main: str | None = None
    ) -> Scores:
        """Return empty scores of some read-outs and of the alignments of one of them, the base.

        The main one is the first alignment unless it is given; `facts` join the protocol.
        """
        self.base = base
        return Scores(
            self.bins,
            list(dict.fromkeys([*readouts, *self.aligned])),
            main or next(iter(self.aligned)),
            terms=self.terms,
            label=self.label,
            subsets=() if self.whole else ("mask",),
            averaging=self.averaging,
            protocol={
                **self.facts,
                "alignment": {key: ALIGNMENTS[how] for key, how in self.aligned.items()},
                **facts,
            },
        )

    def counts(self, target: Tensor) -> Tensor:
        """Return which pixels of (images, 1, h, w) metres count."""
        low, high = self.cap or (self.none_below, math.inf)
        mask = (target > low) & (target < high)
        if self.crop != "none":
            box, inside = self._box(mask), torch.zeros_like(mask)
            inside[box] = mask[box]
            mask, (height, width) = inside, mask.shape[-2:]
            usual = _SIZES.get(self.crop.split("-")[0], (height, width))
            if not 0.8 < width / height * usual[0] / usual[1] < 1.25:
                warnings.warn(
                    f"the {self.crop} crop is of pictures of {usual[0]} x {usual[1]}, these are "
                    f"{height} x {width}; --protocol whole counts all of each",
                    stacklevel=1,  # once, whoever asks
                )
        if self.averaging == "images":
            mask &= mask.sum((-3, -2, -1), keepdim=True) >= MIN_PIXELS
        return mask

    def with_aligned(
        self, maps: Mapping[str, Tensor], target: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Add the alignments of the base, fitted where `mask` is True; at least the first depth."""
        base, found, low = maps[self.base], dict(maps), self.bins.ends[0]
        for key, how in self.aligned.items():
            if how != "none":
                every = (one.flatten(0, 1).cpu().numpy() for one in (base, target, mask))
                fitted = torch.from_numpy(
                    np.stack([align(p, y, m, how) for p, y, m in zip(*every, strict=True)])
                )
                fitted = torch.where(fitted <= 0, low, fitted)
                found[key] = fitted.view_as(base).to(base)
        return found

    def _box(self, maps: Tensor) -> Any:
        return (..., *eigen_crop(maps.shape[-2], maps.shape[-1], self.crop))

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
        beyond: Tensor | None = None,
    ) -> None:
        """Add a batch, (images, 1, h, w) metres, `mask` from `counts`; as for `Scores.update`."""
        subsets = {}
        if self.crop != "none":  # nothing outside counts
            box = self._box(target)
            maps = {name: preds[box] for name, preds in maps.items()}
            target, mask = target[box], mask[box]
            interval = interval and (interval[0][box], interval[1][box])
            beyond = None if beyond is None else beyond[box]
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
            beyond,
        )


def depth_protocols(
    names: str | Sequence[str],
    data: Any,
    seed: int = 0,
    crop: Crop | Sequence[Crop] | None = None,
    cap: Cap | Sequence[Cap] | None = None,
    **options: Any,
) -> list[DepthProtocol]:
    """Return every protocol with every crop and cap, to be scored in one pass over the images."""
    names = [names] if isinstance(names, str) else names
    crops: Any = [crop] if crop is None or isinstance(crop, str) else crop
    caps: Any = [cap] if not cap or not isinstance(cap[0], Sequence) else cap
    if "nyud2_dir" in names and len(names) > 1:
        raise ConfigError(
            f"nyud2_dir sizes images as for the network, {' and '.join(DepthProtocol.WHOLE)} do "
            "not: no pass scores both; give it alone"
        )
    made = [
        DepthProtocol(name, data, seed, of, ends and tuple(ends), **options)
        for name, of, ends in itertools.product(names, crops, caps)
    ]
    return list({rule.facts["name"]: rule for rule in made}.values())


def evaluation_name(scores: Scores) -> str:
    """Return what the folder of some scores is called after their protocol."""
    return re.sub(r"[^\w.-]+", "_", scores.given.get("name", ""))


class _TestLabels(Iterable[Tensor]):
    """The test split's depth maps, read again at every iteration."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.data.labels("test"))
