"""The histogram of a training split: one streamed pass over its depth, kept in a cache."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from depthbal.data.cache import cache_file, cached
from depthbal.data.checks import check_depth
from depthbal.data.loader import LateLoader, single_threaded
from depthbal.data.pairs import PairSource
from depthbal.data.transforms import EvalTransform
from depthbal.errors import DataError
from depthbal.priors import Histogram

logger = logging.getLogger("depthbal")

_FAR_SHARE = 0.01  # of the pixels; beyond it, the histogram's last bin is no longer a bin


class DepthOnly(Dataset[Tensor]):
    """The depth of every pair at the size at which pixels are counted; no image is decoded."""

    def __init__(self, source: PairSource, transform: EvalTransform) -> None:
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        depth = self.source.load_depth(index)
        check_depth(depth, self.source.name(index))
        return self.transform.depth(depth)


def depth_loader(
    source: PairSource, transform: EvalTransform, batch_size: int, num_workers: int
) -> "DataLoader[Tensor]":
    """Return a loader of depth maps in order; maps of different sizes are flattened and joined."""
    return LateLoader(
        DepthOnly(source, transform),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_join,
        worker_init_fn=single_threaded,
    )


def _join(depths: list[Tensor]) -> Tensor:
    return torch.cat([depth.flatten() for depth in depths])


def count_depth(
    loader: "DataLoader[Tensor]", histogram: Histogram, min_depth: float, progress: bool = True
) -> Histogram:
    """Add all depth of at least `min_depth` metres that a loader delivers to a histogram, in place.

    More than 1 % of the pixels beyond the last edge, where all count in the last bin, is warned of;
    not a single pixel is a `DataError`.
    """
    limit = float(histogram.edges[-1])
    last = limit + (histogram.quantum or 0.0) / 2  # a level there is wholly in the last bin
    pixels, far, farthest = 0, 0, limit
    with Progress(transient=True, disable=not progress) as bar:
        for depth in bar.track(loader, description="Counting training depth"):
            valid = depth[depth >= min_depth]
            histogram.update(valid.clamp(max=last))  # what lies beyond is reported below
            beyond = valid[valid > limit]
            pixels, far = pixels + valid.numel(), far + beyond.numel()
            farthest = max(farthest, float(beyond.max()) if len(beyond) else limit)
    if not histogram.total > 0:
        raise DataError(
            f"the training split has no pixel with depth of at least {min_depth:g} m; "
            "check scale and invalid, or lower min_depth"
        )
    if far > _FAR_SHARE * pixels:
        logger.warning(
            "%.1f %% of the training pixels with depth lie beyond %g m (the farthest at %.1f m) "
            "and count in the last bin of the histogram; if such depths matter, raise "
            "--data.max_depth, --model.max_depth and the criterion's label_range "
            "(--model.criterion.label_range) together",
            100 * far / pixels,
            limit,
            farthest,
        )
    return histogram


def cached_histogram(fingerprint: str, count: Callable[[], Histogram]) -> Histogram:
    """Return the histogram kept under a fingerprint, else count it and keep it."""

    def load(file: Path) -> Histogram:
        histogram = Histogram.load(file)
        if not histogram.total > 0:
            raise ValueError(f"{file} is empty")
        return histogram

    file = cache_file("histograms", f"{fingerprint}.json")
    return cached(file, load, count, lambda path, histogram: histogram.save(path))
