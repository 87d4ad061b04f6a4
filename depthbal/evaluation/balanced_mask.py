"""The benchmark's balanced test mask: as many pixels from every bin."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError
from depthbal.evaluation.bins import LabelBins

RELIABLE_PIXELS = 100
"""Bins with fewer pixels than this are named in a warning."""

BoolMap = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
DepthMap = Tensor | npt.NDArray[Any]


class MaskMaps:
    """One (height, width) boolean map per image, kept as the positions of its True pixels."""

    def __init__(self, pixels: Sequence[IntArray], shapes: Sequence[tuple[int, int]]) -> None:
        self.pixels, self.shapes = list(pixels), list(shapes)

    def __getitem__(self, number: int) -> BoolMap:
        out = np.zeros(self.shapes[number], dtype=bool)
        out.reshape(-1)[self.pixels[number]] = True
        return out


@dataclass(frozen=True)
class BalancedMask:
    """The pixels that are scored, and how they were chosen."""

    mask: MaskMaps  # one boolean map per image, in the order of the depth maps
    per_bin: int  # drawn from every non-empty scored bin (of a given mask: the fewest)
    empty_bins: list[int]  # scored ones without a pixel: a gap in every balanced number
    seed: int | None  # of the draw; None for a mask that was given
    source: str  # "drawn" or where the mask came from

    def fingerprint(self) -> str:
        """Return a hash of the chosen pixels (16 hex digits): equal masks, equal numbers."""
        digest = hashlib.sha256()
        for pixels, shape in zip(self.mask.pixels, self.mask.shapes, strict=True):
            digest.update(np.array([*shape, len(pixels), *pixels], dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Return the rule and its outcome for a protocol, JSON-able."""
        return {
            "rule": "the same number of pixels, drawn without replacement, from every scored bin",
            "source": self.source,
            "seed": self.seed,
            "per_bin": self.per_bin,
            "pixels": sum(map(len, self.mask.pixels)),
            "empty_bins": self.empty_bins,
            "fingerprint": self.fingerprint(),
        }


def balanced_mask(depths: Iterable[DepthMap], bins: LabelBins, seed: int = 0) -> BalancedMask:
    """Draw the same number of pixels from every scored bin over a whole test set.

    With n the smallest number of pixels in a non-empty scored bin, n pixels are drawn uniformly
    without replacement from every scored bin; the same maps, bins and seed give the same mask.

    Args:
        depths: (height, width) or (1, height, width) maps, in the order of the test set; a list or
            a data set, for they are read twice, one at a time.
        bins: pixels without a scored bin (no depth, below the first bin) are never drawn.
        seed: of the draw.

    Raises:
        DataError: a generator; no map; no pixel in any scored bin; maps that change between passes.

    Warns:
        UserWarning: scored bins with fewer than 100 pixels; how many, and which are empty.

    Source: NYUD2-DIR (Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021).

    Example:
        >>> import warnings
        >>> from depthbal.evaluation import DepthBins
        >>> depths = [np.array([[0.5, 0.5, 1.5]]), np.array([[1.5, 0.5, 1.5]])]
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     balanced = balanced_mask(depths, DepthBins([0, 1, 2], ["many", "few"]))
        >>> balanced.per_bin, sum(int(m.sum()) for m in balanced.mask)
        (3, 6)
        >>> balanced.mask[0].tolist()
        [[True, True, True]]
    """
    counts = np.array([_counts(index, len(bins)) for index, _ in _indices(depths, bins)])
    if not counts.size or not counts.sum():
        raise DataError(f"none of the {len(counts)} depth maps has a pixel in a scored bin")
    total, ends = counts.sum(0), counts.cumsum(0)
    per_bin = int(total[total > 0].min())
    drawn = []
    for b in np.flatnonzero(total).tolist():
        # one stream per bin: a change in one bin does not disturb the others
        place = np.random.default_rng([seed, b]).choice(total[b], per_bin, replace=False)
        image = np.searchsorted(ends[:, b], place, side="right")
        number = place - (ends - counts)[image, b]  # among the pixels of that bin in that image
        drawn.append(np.stack([image, np.full(per_bin, b), number]))
    image, which, number = np.concatenate(drawn, axis=1)
    order = np.argsort(image, kind="stable")
    own = np.split(order, np.searchsorted(image[order], np.arange(1, len(counts))))
    pixels, shapes = [], []
    for i, (index, shape) in enumerate(_indices(depths, bins)):
        if i >= len(counts) or not np.array_equal(_counts(index, len(bins)), counts[i]):
            raise DataError(f"depth map {i} changed between the two passes over the maps")
        by_bin = np.argsort(index, kind="stable")[len(index) - counts[i].sum() :]
        first = counts[i].cumsum() - counts[i]
        pixels.append(np.sort(by_bin[first[which[own[i]]] + number[own[i]]]))
        shapes.append(shape)
    if len(pixels) != len(counts):
        raise DataError("the depth maps are read twice; pass a list or a data set, no generator")
    empty = _warn_of_thin_bins(total, bins)
    return BalancedMask(MaskMaps(pixels, shapes), per_bin, empty, seed, "drawn")


def load_balanced_mask(
    path: str | Path, depths: Iterable[DepthMap], bins: LabelBins
) -> BalancedMask:
    """Read a mask that was published with a benchmark, such as `test_balanced_mask.npy`.

    Args:
        path: npy file of (images, height, width) booleans or 0/1 integers.
        depths: the maps it belongs to; read once, to count its pixels per bin.
        bins: bins of the evaluation.

    Raises:
        DataError: an unreadable file; another number or size of maps; no pixel in a scored bin.
    """
    try:
        given = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable npy file of a balanced mask ({error})") from error
    indices, shapes = zip(*_indices(depths, bins), strict=True)
    if given.ndim != 3 or [one.shape for one in given] != list(shapes):
        raise DataError(
            f"{path}: mask of shape {given.shape} for {len(shapes)} depth maps of "
            f"{sorted(set(shapes))}; use the mask of the same test set and crop, or remove the "
            "file to have one drawn"
        )
    pixels = [np.flatnonzero(one) for one in given]
    inside = zip(indices, pixels, strict=True)
    drawn = np.sum([_counts(index[chosen], len(bins)) for index, chosen in inside], axis=0)
    if not drawn.sum():
        raise DataError(f"{path}: the mask holds no pixel with a depth in a scored bin")
    per_bin = int(drawn[drawn > 0].min())
    empty = _warn_of_thin_bins(drawn, bins)
    return BalancedMask(MaskMaps(pixels, shapes), per_bin, empty, None, Path(path).name)


def _indices(
    depths: Iterable[DepthMap], bins: LabelBins
) -> Iterator[tuple[npt.NDArray[np.int16], tuple[int, int]]]:
    """Yield the bin of every pixel of one map, flat, and the map's (height, width)."""
    for i, depth in enumerate(depths):
        values = torch.as_tensor(depth)
        if values.ndim == 3 and len(values) == 1:
            values = values[0]
        if values.ndim != 2:
            raise DataError(f"depth map {i} is {tuple(values.shape)}, expected (height, width)")
        height, width = values.shape
        yield bins.index(values).reshape(-1).to(torch.int16).cpu().numpy(), (height, width)


def _counts(index: npt.NDArray[np.int16], n_bins: int) -> IntArray:
    return np.bincount(index + 1, minlength=n_bins + 1)[1:]


def _warn_of_thin_bins(counts: IntArray, bins: LabelBins) -> list[int]:
    """Warn once of scored bins with few pixels; return those with none."""
    scored = np.flatnonzero(bins.scored)
    empty: list[int] = scored[counts[scored] == 0].tolist()
    thin = scored[(counts[scored] > 0) & (counts[scored] < RELIABLE_PIXELS)]
    parts = [f"no pixel in {len(empty)} of {len(scored)} bins"] if empty else []
    if len(thin):
        worst = thin[counts[thin].argmin()]
        ends = f"{bins.edges[worst]:.4g} to {bins.edges[worst + 1]:.4g}"
        few = f"fewer than {RELIABLE_PIXELS} pixels in {len(thin)} of {len(scored)} bins"
        parts.insert(0, f"{few}, {counts[worst]} in the thinnest ({ends})")
    if parts:
        warnings.warn(
            f"balanced mask: {', '.join(parts)}: their numbers rest on little or nothing; all "
            'counts are under "bins" of "all_pixels" in metrics.json',
            UserWarning,
            stacklevel=3,
        )
    return empty
