"""Errors balanced over how far a pose is from the mean pose, as released."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthbal.errors import DataError

Floats = NDArray[np.float64]


def balanced_errors(
    errors: Mapping[str, ArrayLike],
    distance: ArrayLike,
    groups: ArrayLike | None = None,
    bins: int = 100,
    tails: Sequence[int] = (10, 5),
) -> dict[str, Any]:
    """Return mean errors over bins of the distance and over the farthest samples, JSON-able.

    "all" is the unweighted mean over non-empty bins of the mean error in each; the bins are equal
    parts of [min, max] of `distance`. "tailP" is the plain mean over the int(N P / 100) farthest
    samples, None if that is none. The 95 % intervals hold for new errors at the same distances.

    Source: Ren et al., CVPR 2022 (supplement 2.4) as released in MMHuman3D
    (`human_image_dataset.py`), whose rule for the bin, int((d - min) / width - 0.001), puts the
    largest distance into the last bin.

    Args:
        errors: by name (N,), one per sample.
        distance: (N,) of the same samples, any unit.
        groups: (N,) labels, such as the sequence of a video's frame, whose samples resemble each
            other; None or a single one takes samples for independent.
        bins: how many.
        tails: percentages.

    Raises:
        DataError: no samples, another number of distances than of errors, or NaN or infinity.

    Example:
        >>> found = balanced_errors({"mpjpe": [1, 1, 1, 5]}, [0, 0, 0, 9], bins=3, tails=(25,))
        >>> found["mpjpe"]["all"], found["mpjpe"]["tail25"], found["bins_used"]
        (3.0, 5.0, 2)
    """
    far = np.asarray(distance, dtype=np.float64)
    table = {name: np.asarray(values, dtype=np.float64) for name, values in errors.items()}
    for name, values in table.items():
        if values.ndim != 1 or values.shape != far.shape or not len(far):
            raise DataError(f"expected {name} and distances (N,), got {values.shape}, {far.shape}")
        if not np.isfinite(values + far).all():
            raise DataError(f"{name} and distances must be finite")
    width = (far.max() - far.min()) / bins
    index = ((far - far.min()) / width - 0.001).astype(int) if width else np.zeros(len(far), int)
    counts = np.bincount(index, minlength=bins)
    weights = {"all": 1 / (counts[index] * np.count_nonzero(counts))}
    for percent in tails:
        farthest = np.argsort(-far, kind="stable")[: int(len(far) * percent / 100)]
        weights[f"tail{percent}"] = np.zeros(len(far))
        weights[f"tail{percent}"][farthest] = 1 / max(len(farthest), 1)
    several = groups is not None and len(np.unique(groups)) > 1
    found: dict[str, Any] = {
        "bins": bins,
        "bins_used": int(np.count_nonzero(counts)),
        "counts": counts.tolist(),
        "edges": np.linspace(far.min(), far.max(), bins + 1).tolist(),
        "independent": "sequences" if several else "samples",
    }
    for name, values in table.items():
        means: dict[str, Any] = dict.fromkeys(weights)
        ends: dict[str, Any] = {key: [None, None] for key in weights}
        for key, row in weights.items():
            if row.any():
                half = _half_width(row, values, far, groups if several else None)
                means[key] = mean = float(row @ values)
                ends[key] = [mean - half, mean + half]
        found[name] = {**means, "intervals_95": ends}
    return found


def _half_width(weights: Floats, error: Floats, far: Floats, groups: ArrayLike | None) -> float:
    """Return half the width of the 95 % interval of a weighted mean of errors.

    Each sample's variance is its squared residual from a parabola in the distance, divided by
    (1 - leverage)^2 (HC3 of MacKinnon and White, 1985; summed within groups first). The bootstrap
    would be wrong: a resample empties bins of one sample, which shifts the mean over bins so far
    that its percentile interval of 95 % held the truth in 24 to 91 % of simulations.
    """
    scaled = (far - far.mean()) / (far.std() or 1)
    basis = np.linalg.qr(np.vander(scaled, 3))[0]
    leverage = np.minimum(np.square(basis).sum(axis=1), 0.99)
    residual = weights * (error - basis @ (basis.T @ error)) / (1 - leverage)
    if groups is not None:
        residual = np.bincount(np.unique(groups, return_inverse=True)[1], residual)
    return float(NormalDist().inv_cdf(0.975) * np.sqrt(np.square(residual).sum()))
