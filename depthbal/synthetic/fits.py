"""What a solver hands back."""

from typing import NamedTuple

from torch import Tensor


class Fit(NamedTuple):
    """The regressors of S seeds.

    test_preds (S, m, D): what they say about the test inputs; noise_sigma (S,), or None where the
    method has none of its own; iterations; notes: what deserves a remark, per seed.
    """

    test_preds: Tensor
    noise_sigma: Tensor | None
    iterations: int
    notes: tuple[str, ...] = ()


def note_bound(seed: int, sigma: float) -> str:
    """Return the remark on a learned sigma that stopped at its bound."""
    return (
        f"seed {seed}: sigma is at its bound {sigma:g}, because the residuals vary as much as the "
        "labels do under the prior: the likelihood grows with sigma for ever"
    )
