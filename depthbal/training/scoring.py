"""The pass over a test split: predict, read out, score."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from depthbal.data import DepthDataModule
from depthbal.data.checks import check_pair
from depthbal.data.images import resize_short_side
from depthbal.errors import DataError
from depthbal.evaluation import Evaluation
from depthbal.evaluation.balanced_mask import MaskMaps
from depthbal.predictor import Predictor
from depthbal.training.callbacks import show_progress


class Batch(NamedTuple):
    """Images of the test split on the predictor's device."""

    indices: list[int]
    images: Tensor
    """(B, 3, H, W), normalised."""
    target: Tensor
    """(B, 1, h, w) metres, 0 = no depth."""


class ScoredSplit(ABC):
    """A test split as a protocol looks at it.

    Args:
        data: A data module whose test split is built.
        predictor: Says how images are normalised, and where to.
    """

    def __init__(self, data: DepthDataModule, predictor: Predictor) -> None:
        assert data.test_set is not None
        self.data = data
        self.test_set = data.test_set
        self.source = data.test_set.source
        self.predictor = predictor

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """Yield every image once, in order, under a progress bar."""

    @abstractmethod
    def one(self, index: int) -> Batch:
        """Return one image as it was in its batch."""

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return the names of images."""
        return [self.source.name(index) for index in indices]

    def groups(self, indices: Sequence[int]) -> list[str]:
        """Return the scenes of images, "" where unknown."""
        return [self.source.group(index) for index in indices]


class Crops(ScoredSplit):
    """The benchmark's resized and cropped images, in the loader's batches."""

    def __iter__(self) -> Iterator[Batch]:
        loader = self.data.test_dataloader()
        device = self.predictor.mean.device
        for batch in track(loader, "Evaluating", transient=True, disable=not show_progress()):
            images, target = batch["image"].to(device), batch["depth"].to(device)
            yield Batch(batch["index"].tolist(), images, target)

    def one(self, index: int) -> Batch:
        """Return one image as it was in its batch."""
        sample = self.test_set[index]
        device = self.predictor.mean.device
        return Batch([index], sample["image"][None].to(device), sample["depth"][None].to(device))


class WholeImages(ScoredSplit):
    """The images of the files at their own size, one by one."""

    def __iter__(self) -> Iterator[Batch]:
        indices = range(len(self.source))
        for index in track(indices, "Evaluating", transient=True, disable=not show_progress()):
            yield self.one(index)

    def one(self, index: int) -> Batch:
        """Return one image with its own truth."""
        image, depth = self.source.load(index)
        check_pair(image, depth, self.source.name(index))
        side = self.predictor.short_side
        pixels = image if side is None else resize_short_side(image, side, nearest=False)
        target = torch.from_numpy(depth)[None, None].to(self.predictor.mean.device)
        return Batch([index], self.predictor.normalise(pixels), target)


def predicted(predictor: Predictor, batch: Batch, names: Sequence[str]) -> Tensor:
    """Return the network's own predictions at the size of the truth, (B, 1, h, w) metres.

    Raises:
        DataError: Predictions that are to be balanced afterwards and are not finite; names images.
    """
    raw = predictor.predict_raw(batch.images, (batch.target.shape[-2], batch.target.shape[-1]))
    if predictor.posthoc is not None:
        wrong = (~raw.isfinite()).flatten(1).any(1).tolist()
        if any(wrong):
            bad = ", ".join(name for name, is_bad in zip(names, wrong, strict=True) if is_bad)
            raise DataError(
                f"the network's predictions for {bad} are NaN or infinite and cannot be balanced; "
                "mend the model before it is scored"
            )
    return raw


@torch.no_grad()
def score(
    evaluation: Evaluation, split: ScoredSplit, predictor: Predictor, mask: MaskMaps | None
) -> None:
    """Add a whole split to an evaluation.

    Args:
        evaluation: Where the numbers are collected.
        split: What is scored.
        predictor: With what it is predicted.
        mask: The balanced mask of every image, or None for a protocol without.

    Raises:
        DataError: Damaged files, or predictions that are not finite; names the images.
    """
    for batch in split:
        names = split.names(batch.indices)
        raw = predicted(predictor, batch, names)
        balanced = None
        if mask is not None:
            chosen = np.stack([mask[index] for index in batch.indices])
            balanced = torch.from_numpy(chosen).unsqueeze(1).to(batch.target.device)
        evaluation.update(
            predictor.read_out(raw),
            batch.target,
            batch.target > 0,
            balanced,
            names,
            split.groups(batch.indices),
            predictor.interval(raw),
        )
