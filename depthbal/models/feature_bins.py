"""The label bin of every feature, also where features have another resolution than labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from depthbal.losses.label_weights import bin_per_label


def feature_bins(
    target: Tensor, mask: Tensor | None, edges: Tensor, size: tuple[int, ...]
) -> Tensor:
    """Return the number of every feature's label bin.

    Dense features of another size than the labels get the label at their middle. Networks that
    extend their input at its lower right to a multiple of their stride have features of that
    extended input, so the features' pixels are taken to be 1, 2, 4, ... or 1/2, 1/4, ... of the
    labels', the smallest with which they cover them, aligned at the upper left; features beyond
    the labels have none.

    Args:
        target: Labels (N,) or (N, 1), or dense (N, 1, H, W); NaN is no label.
        mask: bool, as the labels; True counts. None where all do.
        edges: Bin edges in float64, (B + 1,), on the labels' device.
        size: The features' size without their batch and channels: () or (h, w).

    Returns:
        int64 (N,) or (N, h, w), in [0, B), and B where there is no label.

    Raises:
        ValueError: One label per image and dense features, or the other way round.

    Example:
        >>> depth = torch.tensor([[[[1.0, 0.0], [1.0, 2.0]]]])
        >>> feature_bins(depth, depth > 0, torch.tensor([0.5, 1.5, 2.5]).double(), (2, 3)).tolist()
        [[[0, 2, 2], [0, 1, 2]]]
    """
    none = len(edges) - 1
    labels = target if target.is_floating_point() else target.float()
    counts = ~labels.isnan() if mask is None else mask & ~labels.isnan()
    bins = torch.where(counts, bin_per_label(labels, edges), none)
    if bins.ndim - len(size) not in (1, 2) or (bins.ndim > 1 + len(size) and bins.shape[1] != 1):
        raise ValueError(
            f"expected one label per feature; got labels {tuple(target.shape)} and features of "
            f"size {size} per channel: name a layer with --trainer.callbacks.init_args.layer whose "
            "input has that form"
        )
    if not size:
        return bins.flatten()
    maps = bins.reshape(len(bins), 1, *bins.shape[-2:])
    return _at_size(maps, size, none)[:, 0]


def _at_size(bins: Tensor, size: tuple[int, ...], none: int) -> Tensor:
    """Return maps (N, 1, H, W) at another size; see `feature_bins`."""
    if tuple(bins.shape[-2:]) == size:
        return bins
    height, width = bins.shape[-2:]
    pixel = 1.0  # side of a feature's pixel in pixels of the labels
    while pixel * size[0] < height or pixel * size[1] < width:
        pixel *= 2
    while pixel / 2 * size[0] >= height and pixel / 2 * size[1] >= width:
        pixel /= 2
    rows, columns = (_middles(count, pixel, bins.device) for count in size)
    beyond = max(0, int(rows[-1]) + 1 - height), max(0, int(columns[-1]) + 1 - width)
    extended = F.pad(bins, (0, beyond[1], 0, beyond[0]), value=none)
    return extended[..., rows[:, None], columns]


def _middles(count: int, pixel: float, device: torch.device) -> Tensor:
    """Return the label's row (or column) in the middle of every feature's pixel."""
    return ((torch.arange(count, device=device) + 0.5) * pixel).long()
