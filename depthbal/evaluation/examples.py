"""Which images show what a model does: the best, the median, the worst and the rare ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from depthbal.evaluation.bins import LabelBins

REASONS = ("best", "median", "worst", "rare")
EACH = 6
"""Images per reason; their number does not grow with the test set."""


@dataclass(frozen=True)
class Example:
    """An image, why it was chosen, and its RMSE over all scored pixels in label units."""

    index: int
    reason: str
    rmse: float


def choose_examples(
    sums: npt.NDArray[np.float64], bins: LabelBins, terms: Sequence[str]
) -> list[Example]:
    """Choose up to 24 images: 6 each with the best, median and worst RMSE and the rarest pixels.

    The rare ones have the most few-shot pixels and are chosen first, by their truth alone: they are
    the same for every model. No image is chosen twice; of fewer than 24 images each reason gets a
    quarter, the median the rest. Images without a scored pixel are never chosen.

    Args:
        sums: (images, bins, terms) of one read-out over all pixels, "count" and "squared" among
            the terms.
        bins: their bins and shots.
        terms: the names of the last dimension.

    Example:
        >>> bins = LabelBins([0, 1, 2], ["many", "few"])
        >>> counts = np.array([[4.0, 0], [4, 0], [4, 0], [2, 2]])
        >>> squares = np.array([[4.0, 0], [16, 0], [0, 0], [8, 8]])
        >>> sums = np.stack([counts, squares], 2)
        >>> for example in choose_examples(sums, bins, ("count", "squared")):
        ...     print(example.index, example.reason, example.rmse)
        2 best 0.0
        0 median 1.0
        1 worst 2.0
        3 rare 2.0
    """
    names = list(terms)
    counts = sums[..., names.index("count")] @ bins.groups().T
    overall, few = counts[:, 0], counts[:, 3]
    squared = sums[:, bins.scored, names.index("squared")].sum(1)
    rmse = np.sqrt(squared / np.maximum(overall, 1))
    known = np.flatnonzero(overall > 0)
    each = min(EACH, max(1, len(known) // 4))
    rarest = known[np.argsort(-few[known], kind="stable")]
    rare = [i for i in rarest[:each].tolist() if few[i] > 0]
    ranked = [i for i in known[np.argsort(rmse[known], kind="stable")].tolist() if i not in rare]
    best, rest = ranked[:each], ranked[each:]
    worst, rest = rest[::-1][:each], rest[: max(len(rest) - each, 0)]
    left = min(len(REASONS) * EACH - 3 * each, len(rest))
    first = (len(rest) - left + 1) // 2
    chosen = zip(REASONS, (best, rest[first : first + left], worst, rare), strict=True)
    return [Example(i, reason, float(rmse[i])) for reason, found in chosen for i in found]
