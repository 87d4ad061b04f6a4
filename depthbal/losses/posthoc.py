"""Balancing without re-training: a trained regressor's outputs, remapped as Balanced MSE would."""

import math

import torch
from torch import Tensor

from depthbal.losses.base import checked_range
from depthbal.losses.mean_table import MeanTable
from depthbal.losses.readout import truncated_normal_mean
from depthbal.losses.reduction import compute_dtype
from depthbal.priors import GaussianMixture, Histogram

# Point masses bound m(p): predictions this share of the label range from an end, or beyond it, are
# unreachable, for the location goes to infinity there.
UNREACHABLE_SHARE = 1e-6


def balance_predictions(
    preds: Tensor,
    prior: GaussianMixture | Histogram,
    noise_sigma: Tensor | float,
    label_range: tuple[float, float] | None = None,
) -> Tensor:
    """Return the balanced predictions that a regressor trained with plain MSE implies.

    The optimum p(x) of Balanced MSE at fixed sigma satisfies m(p(x)) = E_train[y | x], which is
    what MSE training estimates, so

        p = m^-1(prediction),   m(p) = p + sigma^2 d log E(p) / dp

    with dm/dp = Var_train[y | p] / sigma^2 > 0: one table inverts m for any number of predictions,
    within 1e-7 standard deviations of the labels between its nodes. With ``label_range`` the
    balanced world is uniform on the range only, and p is read out as ``truncated_normal_mean``. It
    is the baseline that balanced training has to beat; for many batches make a ``BalanceMap``.

    Args:
        preds: Predictions of E_train[y | x], any shape, label units, finite.
        prior: Distribution of the training labels; a histogram is its bins' centres, as for BNI.
        noise_sigma: Noise scale sigma > 0 in label units, one element; the regressor's residual on
            the validation split is a good choice.
        label_range: Ends (lo, hi) of the label range in label units, or None for the location p.

    Returns:
        Balanced predictions of the shape of ``preds``, float64 for float64, else float32; detached.
        A histogram cannot explain predictions at or beyond its outermost centres: they get the
        limit, an end of the label range; without one the location of a prediction that is 1e-6 of
        the range of labels inside.

    Raises:
        ValueError: NaN or infinite predictions, a sigma that is not positive or has several
            elements, a prior that is one single label or of vectors.

    Source: Ren et al., CVPR 2022, Theorem 1; m is Tweedie's formula (Efron, 2011).

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])  # m(p) = (3 p + sigma^2 2) / (3 + sigma^2)
        >>> balance_predictions(torch.tensor([2.0, 5.0]), prior, 1.0)
        tensor([2., 6.])
    """
    return BalanceMap(prior, noise_sigma, label_range)(preds)


class BalanceMap:
    """The map of ``balance_predictions`` for one prior and one sigma, for any number of batches.

    The table of m is built once; arguments and errors are those of ``balance_predictions``.

    Example:
        >>> balance = BalanceMap(GaussianMixture([1.0], [2.0], [3.0]), 1.0, (0.0, 10.0))
        >>> balance.locations(torch.tensor([2.0, 5.0]))
        tensor([2., 6.])
        >>> balance(torch.tensor([2.0, 5.0]))  # the truncated normals' means
        tensor([2.0552, 5.9999])
    """

    def __init__(
        self,
        prior: GaussianMixture | Histogram,
        noise_sigma: Tensor | float,
        label_range: tuple[float, float] | None = None,
    ) -> None:
        sigma = torch.as_tensor(noise_sigma, dtype=torch.float64)
        if sigma.numel() != 1 or not 0 < sigma < math.inf:
            raise ValueError(
                f"expected a positive noise_sigma in label units, one element, got {noise_sigma}"
            )
        self.noise_sigma = float(sigma)
        self.label_range = None if label_range is None else checked_range(label_range)
        mixture = GaussianMixture.of_scalars(prior)
        present = mixture.weights > 0
        bottom, top = (float(end) for end in mixture.means[present].aminmax())
        margin = 4 * self.noise_sigma
        ends = bottom - margin, top + margin
        if (mixture.variances[present] > 0).any():
            bottom, top = -math.inf, math.inf
        elif not bottom < top:
            raise ValueError(f"expected a prior of at least 2 distinct labels, got only {top}")
        self._reachable = bottom, top  # the open interval of values that m takes
        self._table = MeanTable(mixture, self.noise_sigma, ends)

    def locations(self, preds: Tensor) -> Tensor:
        """Return the locations p of predictions of E_train[y | x], before any read-out."""
        return self._locate(preds).to(compute_dtype(preds))

    def __call__(self, preds: Tensor) -> Tensor:
        """Return the balanced predictions: the locations, read out on the label range if any."""
        locations = self._locate(preds)
        if self.label_range is None:
            return locations.to(compute_dtype(preds))
        low, high = self.label_range
        balanced = truncated_normal_mean(locations, self.noise_sigma, self.label_range)
        bottom, top = self._reachable
        balanced = torch.where(preds <= bottom, low, balanced)
        balanced = torch.where(preds >= top, high, balanced)
        return balanced.to(compute_dtype(preds))

    def _locate(self, preds: Tensor) -> Tensor:
        """Return the locations in float64."""
        preds = preds.detach()
        bad = int((~torch.isfinite(preds)).sum())
        if bad:
            raise ValueError(f"expected finite predictions, got {bad} NaN or infinite")
        bottom, top = self._reachable
        margin = UNREACHABLE_SHARE * (top - bottom) if math.isfinite(top) else 0.0
        return self._table.invert(preds.double().clamp(bottom + margin, top - margin))
