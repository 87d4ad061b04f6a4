"""Balancing without re-training: a trained regressor's outputs, remapped as Balanced MSE would."""

import math
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.losses.interval import central_interval
from depthbal.losses.mean_table import MeanTable
from depthbal.losses.readout import require_increasing, truncated_normal_mean
from depthbal.losses.reduction import compute_dtype
from depthbal.priors import GaussianMixture, Histogram
from depthbal.priors.files import Stored

Predictions = TypeVar("Predictions", Tensor, npt.NDArray[Any])

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

    Setting the derivative of the Balanced MSE to zero at fixed sigma shows that its optimum p(x)
    satisfies m(p(x)) = E_train[y | x], which is what MSE training estimates. So

        p = m^-1(prediction),   m(p) = p + sigma^2 d log E(p) / dp

    m is the mean label of the training world given p: by Theorem 1 the training posterior is
    p_train(y) N(y; p, sigma^2) / E(p), and differentiating log E gives (E_train[y | p] - p) /
    sigma^2. Differentiating again, dm/dp = Var_train[y | p] / sigma^2 > 0: m increases, and one
    monotone table inverts it for any number of predictions. The table is refined until it agrees
    with the exact m within 1e-7 standard deviations of the labels between its nodes.

    For many batches of one prior make a ``BalanceMap``, which builds the table once.

    With ``label_range`` the balanced world is uniform on the range only, and the location p is read
    out as ``truncated_normal_mean``. It is the baseline that balanced training has to beat.

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

    Source: the stationarity condition of Balanced MSE (Ren et al., CVPR 2022, Theorem 1); m is
    Tweedie's formula (Efron, Tweedie's Formula and Selection Bias, 2011).

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])  # m(p) = (3 p + sigma^2 2) / (3 + sigma^2)
        >>> balance_predictions(torch.tensor([2.0, 5.0]), prior, 1.0)
        tensor([2., 6.])
    """
    return BalanceMap(prior, noise_sigma, label_range)(preds)


class BalanceMap(Stored):
    """The map of ``balance_predictions`` for one prior and one sigma, for any number of batches.

    ``save`` writes it as JSON; ``BalanceMap.load(path)`` returns it, or the ``CalibratedMap`` that
    `depthbal balance` wrote.

    The table of m is built once, when the first predictions need it; predictions beyond those of
    earlier batches add a piece at its end. What a prediction is sent to does not depend on the
    batches before it. Arguments and errors are those of ``balance_predictions``.

    Example:
        >>> balance = BalanceMap(GaussianMixture([1.0], [2.0], [3.0]), 1.0, (0.0, 10.0))
        >>> balance.locations(torch.tensor([2.0, 5.0]))
        tensor([2., 6.])
        >>> balance(torch.tensor([2.0, 5.0]))  # the truncated normals' means
        tensor([2.0552, 5.9999])
    """

    way: ClassVar[str] = "theorem"
    label: tuple[str, str] | None = None
    """Name and unit of what is balanced, where it is recorded."""
    facts: dict[str, Any] | None = None
    """How it was chosen and what it does on held-out images, JSON-able."""
    noise_sigma: float | None
    tau: float | None = None
    label_range: tuple[float, float] | None

    def __init__(
        self,
        prior: GaussianMixture | Histogram,
        noise_sigma: Tensor | float,
        label_range: tuple[float, float] | None = None,
    ) -> None:
        sigma = torch.as_tensor(noise_sigma, dtype=torch.float64)
        if sigma.numel() != 1:
            raise ValueError(
                f"expected noise_sigma with one element, got shape {tuple(sigma.shape)}"
            )
        if not (sigma > 0 and torch.isfinite(sigma)):
            raise ValueError(f"expected a positive noise_sigma in label units, got {noise_sigma}")
        self.noise_sigma = self._sigma = float(sigma)
        self._prior = prior
        self.label_range = None if label_range is None else require_increasing(label_range)
        mixture = GaussianMixture.from_histogram(prior) if isinstance(prior, Histogram) else prior
        self.reachable = _reachable(mixture)
        self._table = MeanTable(mixture, self._sigma)

    def locations(self, preds: Tensor) -> Tensor:
        """Return the locations p of predictions of E_train[y | x], before any read-out."""
        return self._locate(preds).to(compute_dtype(preds))

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the 68.27 % interval of the label given the prediction."""
        return central_interval(self.locations(preds), self._sigma, self.label_range)

    def __call__(self, preds: Predictions) -> Predictions:
        """Return the balanced predictions of a tensor or array, finite, in label units.

        They are the locations, read out on the label range if there is one.
        """
        if isinstance(preds, Tensor):
            return self._balance(preds)
        return self._balance(torch.as_tensor(np.asarray(preds))).numpy()

    def _balance(self, preds: Tensor) -> Tensor:
        locations = self._locate(preds)
        if self.label_range is None:
            return locations.to(compute_dtype(preds))
        low, high = self.label_range
        balanced = truncated_normal_mean(locations, self._sigma, self.label_range)
        bottom, top = self.reachable
        balanced = torch.where(preds <= bottom, low, balanced)
        balanced = torch.where(preds >= top, high, balanced)
        return balanced.to(compute_dtype(preds))

    def _locate(self, preds: Tensor) -> Tensor:
        """Return the locations in float64."""
        preds = self.require_finite(preds)
        if preds.numel() == 0:
            return preds.double()
        bottom, top = self.reachable
        margin = UNREACHABLE_SHARE * (top - bottom) if math.isfinite(top) else 0.0
        return self._table.invert(preds.double().clamp(bottom + margin, top - margin))

    @staticmethod
    def require_finite(preds: Tensor) -> Tensor:
        """Return predictions without their gradient; a ValueError where some are not finite."""
        bad = int((~torch.isfinite(preds)).sum())
        if bad:
            raise ValueError(f"expected finite predictions, got {bad} NaN or infinite")
        return preds.detach()

    # ---- files ----

    def describe(self) -> dict[str, Any]:
        """Return what it is and what it is worth in a few plain values, for protocols."""
        own = {"way": self.way, "noise_sigma": self.noise_sigma, "tau": self.tau}
        facts = {**own, **(self.facts or {})}
        return {
            key: value
            for key, value in facts.items()
            if key == "interval_95" or isinstance(value, str | int | float)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        about = {"label": self.label, "label_range": self.label_range, "facts": self.facts}
        return {"kind": "BalanceMap", "way": self.way, **about, **self.parameters()}

    def parameters(self) -> dict[str, Any]:
        """Return what makes the map again, JSON-able."""
        return {"noise_sigma": self._sigma, "prior": self._prior.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "BalanceMap":  # type: ignore[override]
        """Return the map that ``to_dict`` described, of either way."""
        from depthbal.losses.calibration import CalibratedMap

        ways = {way.way: way for way in (BalanceMap, CalibratedMap)}
        balance = ways[content["way"]].from_parameters(content)
        balance.label = content["label"] and tuple(content["label"])
        balance.facts = content["facts"]
        return balance

    @classmethod
    def from_parameters(cls, content: dict[str, Any]) -> Self:
        """Return the map that ``parameters`` described."""
        stored, ends = content["prior"], content["label_range"]
        kind: Any = {"Histogram": Histogram, "GaussianMixture": GaussianMixture}[stored["kind"]]
        return cls(kind.from_dict(stored), content["noise_sigma"], ends and tuple(ends))


def _reachable(prior: GaussianMixture) -> tuple[float, float]:
    """Return the open interval of values that m takes."""
    if prior.means.ndim != 1:
        raise ValueError(f"expected a prior of scalar labels, got means {tuple(prior.means.shape)}")
    present = prior.weights > 0
    if (prior.variances[present] > 0).any():
        return -math.inf, math.inf
    bottom, top = (float(end) for end in prior.means[present].aminmax())
    if not bottom < top:
        raise ValueError(f"expected a prior of at least 2 distinct labels, got only {top}")
    return bottom, top
