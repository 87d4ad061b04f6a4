"""Balancing a trained regressor: a table of the training world's mean label m(p), read backwards.

The guard of noise that follows the prediction (``guard_noise``) looks in it where m falls.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from torch import Tensor

from depthbal.io import Stored
from depthbal.losses.base import checked_range, require_positive, scale_of
from depthbal.losses.evidence import Components, SigmaOf, Wanted, exact_evidence
from depthbal.losses.readout import central_interval, truncated_normal_mean
from depthbal.losses.reduction import compute_dtype
from depthbal.priors import GaussianMixture, Histogram, World, prior_class

Predictions = TypeVar("Predictions", Tensor, npt.NDArray[Any])

# Largest error of the tabulated m(p), as a share of the labels' standard deviation.
TOLERANCE = 1e-7
# At a distance d from the labels float64 knows m to this number times d (d / sigma)^2, because the
# posterior's exponents are as large as (d / sigma)^2 / 2 and p cancels; finer is only noise.
ROUNDING = 1e-15
START_CELLS = 64
MAX_LABEL_NODES = 1024
MAX_NODES = 2**18
MAX_QUARTERINGS = 24
# Pieces of doubling width to either side: the table ends a million widths of the first one away,
# where rounding is still far below the tolerance.
PIECES, OUTER_CELLS = 20, 16
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

    with dm/dp = Var_train[y | p] / sigma^2 > 0: one table inverts m. With ``label_range`` the
    balanced world is uniform on the range only, and p is read out as ``truncated_normal_mean``. For
    many batches make a ``BalanceMap``.

    Args:
        preds: Predictions of E_train[y | x], any shape, label units, finite.
        prior: Distribution of the training labels; a histogram is its bins' centres, as for BNI.
        noise_sigma: Noise scale sigma > 0 in label units, one element: ``sigma_from_rmse`` of the
            regressor's RMSE on the validation split.
        label_range: Ends (lo, hi) of the label range in label units, or None for the location p.

    Returns:
        Balanced predictions of the shape of ``preds``, float64 for float64, else float32; detached.
        Those at or beyond a histogram's outermost centres get the limit: an end of the label range,
        or the location of a prediction 1e-6 of the range inside.

    Raises:
        ValueError: NaN or infinite predictions, a prior that is one single label or of vectors.

    Source: Ren et al., CVPR 2022, Theorem 1; m is Tweedie's formula (Efron, 2011).

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])  # m(p) = (3 p + sigma^2 2) / (3 + sigma^2)
        >>> balance_predictions(torch.tensor([2.0, 5.0]), prior, 1.0)
        tensor([2., 6.])
    """
    return BalanceMap(prior, noise_sigma, label_range)(preds)


def sigma_from_rmse(rmse: float, prior: GaussianMixture | Histogram) -> float:
    """Return the noise scale of a plain regressor from its RMSE on labels like the training ones.

        sigma^2 - sigma^4 integral of E'(p)^2 / E(p) dp = RMSE^2

    Its outputs estimate E_train[y | x], whose squared error is the mean variance of the training
    posterior, the left side. The noise sigma of the likelihood is larger: a prior narrows.

    Args:
        rmse: Root mean squared error on a validation split, label units.
        prior: Distribution of the training labels; those of a histogram lie evenly in their bins.

    Returns:
        Sigma in label units, above ``rmse``.

    Raises:
        ValueError: An RMSE that is not positive, or not below the labels' standard deviation: such
            a regressor knows nothing of them. A prior of vectors.

    Source: Theorem 1 of Ren et al., CVPR 2022, with Tweedie's formula (Efron, 2011).

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])  # 3 sigma^2 / (3 + sigma^2) = RMSE^2
        >>> round(sigma_from_rmse(1.2**0.5, prior), 6)
        1.414214
    """
    masses = Components.of(GaussianMixture.of_scalars(prior), torch.device("cpu"))
    if isinstance(prior, Histogram):
        within = torch.from_numpy(prior.widths[prior.counts > 0]) ** 2 / 12
        masses = masses._replace(variances=within)
    spread = _variance(masses)
    if not 0 < rmse < (1 - 1e-6) * math.sqrt(spread):
        raise ValueError(
            f"expected an RMSE above 0 and below the labels' standard deviation, got {rmse:g} and "
            f"{math.sqrt(spread):g}: a model without that error knows nothing that can be balanced"
        )
    extremes = torch.stack([masses.means, masses.variances]).aminmax(dim=1)
    (low, narrowest), (high, widest) = torch.stack(extremes).tolist()

    def excess(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        step = math.sqrt(narrowest + sigma**2) / 8  # the trapezoidal rule is exact to 12 digits
        margin = 9 * math.sqrt(widest + sigma**2)
        nodes = torch.arange(low - margin, high + margin, step, dtype=torch.float64)
        found = exact_evidence(nodes, nodes.new_tensor(sigma), masses, Wanted(by_sigma=False))
        assert found.by_preds is not None
        density = found.value.exp() / (sigma * math.sqrt(2 * math.pi))
        return sigma**2 - sigma**4 * step * float(density @ found.by_preds**2) - rmse**2

    # The linear estimate, which is the posterior's mean for normal labels only, errs by more.
    start = math.log(rmse) - 0.5 * math.log1p(-(rmse**2) / spread)
    end = start
    while excess(end) < 0:
        end += 1
    return math.exp(brentq(excess, start - 1e-3, end))


class BalanceMap(Stored):
    """The map of ``balance_predictions`` for one prior and one sigma, its table built once.

    ``save`` writes it as JSON; ``BalanceMap.load(path)`` returns it, or the ``CalibratedMap`` that
    `depthbal balance` wrote.

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
        sigma = scale_of(noise_sigma, torch.Size(), torch.empty((), dtype=torch.float64))
        require_positive(sigma)
        self.noise_sigma = self._sigma = float(sigma)
        self._prior = prior
        self.label_range = None if label_range is None else checked_range(label_range)
        mixture = GaussianMixture.of_scalars(prior)
        present = mixture.weights > 0
        bottom, top = (float(end) for end in mixture.means[present].aminmax())
        margin = 4 * self._sigma
        ends = bottom - margin, top + margin
        if (mixture.variances[present] > 0).any():
            bottom, top = -math.inf, math.inf
        elif not bottom < top:
            raise ValueError(f"expected a prior of at least 2 distinct labels, got only {top}")
        self._reachable = bottom, top  # the open interval of values that m takes
        self._table = MeanTable(mixture, self._sigma, ends)

    def relative_to(self, world: World | str) -> "BalanceMap":
        """Return the map that balances for another world; see ``Histogram.relative_to``."""
        if not isinstance(self._prior, Histogram) or self.way != "theorem" or self.facts:
            raise ValueError(
                "only balancing by a sigma that is given takes another world: a map that was "
                "chosen has its own; choose another with depthbal balance --relative-to WORLD"
            )
        balance = BalanceMap(self._prior.relative_to(world), self._sigma, self.label_range)
        balance.label, balance.facts = self.label, {"relative_to": str(world)}
        return balance

    def locations(self, preds: Tensor) -> Tensor:
        """Return the locations p of predictions of E_train[y | x], before any read-out."""
        return self._locate(preds).to(compute_dtype(preds))

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the 68.27 % interval of the label given the prediction."""
        return central_interval(self.locations(preds), self._sigma, self.label_range)

    def __call__(self, preds: Predictions) -> Predictions:
        """Return the balanced predictions of a tensor or array, finite, in label units."""
        if isinstance(preds, Tensor):
            return self._balance(preds)
        return self._balance(torch.as_tensor(np.asarray(preds))).numpy()

    def _balance(self, preds: Tensor) -> Tensor:
        locations = self._locate(preds)
        if self.label_range is None:
            return locations.to(compute_dtype(preds))
        low, high = self.label_range
        balanced = truncated_normal_mean(locations, self._sigma, self.label_range)
        bottom, top = self._reachable
        balanced = torch.where(preds <= bottom, low, balanced)
        balanced = torch.where(preds >= top, high, balanced)
        return balanced.to(compute_dtype(preds))

    def _locate(self, preds: Tensor) -> Tensor:
        """Return the locations in float64."""
        preds = self.require_finite(preds)
        bottom, top = self._reachable
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
        """Return the arguments that make the map again but for its range, JSON-able."""
        return {"noise_sigma": self._sigma, "prior": self._prior.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "BalanceMap":  # type: ignore[override]
        """Return the map that ``to_dict`` described, of whichever way."""
        classes: list[type[Any]] = [BalanceMap, *BalanceMap.__subclasses__()]
        ways = {one.way: one for one in classes}
        ends, label = content["label_range"], content["label"]
        about = ("kind", "way", "label", "label_range", "facts")
        arguments = {name: value for name, value in content.items() if name not in about}
        if "prior" in arguments:
            arguments["prior"] = prior_class(arguments["prior"]).from_dict(arguments["prior"])
        balance: BalanceMap = ways[content["way"]](**arguments, label_range=ends and tuple(ends))
        balance.label, balance.facts = label and tuple(label), content["facts"]
        return balance


class MeanTable:
    """Locations p, increasing, and their m(p), between which m is linear within the tolerance.

    The first piece lies between the given ends; pieces of doubling width continue it to either
    side, a million times as far.
    """

    def __init__(
        self,
        prior: GaussianMixture,
        noise_sigma: float | SigmaOf,
        first: tuple[float, float],
        tolerance: float | None = None,
    ) -> None:
        self._mixture = Components.of(prior, torch.device("cpu"))
        self._tolerance = tolerance or TOLERANCE * math.sqrt(_variance(self._mixture))
        self._noise, (low, high) = noise_sigma, first
        # At a small sigma m is a staircase with a step between two labels; an even grid could have
        # the steps' own spacing and would see a straight line.
        labels = self._mixture.means[self._mixture.log_weights > -math.inf].sort().values
        labels = labels[:: math.ceil(len(labels) / MAX_LABEL_NODES)]
        labels = labels[(labels > low) & (labels < high)]
        inside = torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64)
        reach = (high - low) * (2.0 ** torch.arange(PIECES + 1, dtype=torch.float64) - 1)
        pieces = [torch.cat([inside, labels]).sort().values]
        for near, far in itertools.pairwise(reach.tolist()):
            steps = torch.linspace(near, far, OUTER_CELLS + 1, dtype=torch.float64)
            pieces = [low - steps.flip(0), *pieces, high + steps]
        # Tensors that are kept must not belong to the evaluation loop's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            found = [self._refined(nodes) for nodes in pieces]
        # A node that two pieces share has one mean: m need not jump there for rounding's sake.
        self.locations = torch.cat([part[0][:-1] for part in found] + [found[-1][0][-1:]])
        self.means = torch.cat([part[1][:-1] for part in found] + [found[-1][1][-1:]])

    def invert(self, means: Tensor) -> Tensor:
        """Return p with m(p) = means (float64, finite), linear between nodes, at most the ends."""
        # Rounding must not make the table decrease where m is flat.
        table = self.means.cummax(0).values.to(means.device)
        values = self.locations.to(means.device)
        inside = means.clamp(table[0], table[-1]).contiguous()
        right = torch.searchsorted(table, inside).clamp(1, len(table) - 1)
        start, stop = table[right - 1], table[right]
        share = (inside - start) / (stop - start).clamp(min=torch.finfo(means.dtype).tiny)
        return torch.lerp(values[right - 1], values[right], share)

    def _refined(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations, the nodes among them, and their m."""
        smallest, largest = self._mixture.means.aminmax()
        distance = float(torch.maximum(smallest - nodes[0], nodes[-1] - largest))
        relative = max(1.0, distance / float(self._sigma(nodes).min()))
        return refine(self._mean, nodes, max(self._tolerance, ROUNDING * distance * relative**2))

    def _sigma(self, p: Tensor) -> Tensor:
        sigma = self._noise(p).detach() if callable(self._noise) else self._noise
        return torch.as_tensor(sigma, dtype=torch.float64)

    def _mean(self, p: Tensor) -> Tensor:
        noise, points = self._sigma(p), p.flatten()
        noise = noise.flatten() if noise.ndim else noise
        slope = exact_evidence(points, noise, self._mixture, Wanted(by_sigma=False)).by_preds
        assert slope is not None
        return (points + noise**2 * slope).view(p.shape)


def _variance(mixture: Components) -> float:
    """Return the variance of a scalar mixture."""
    weights, means = mixture.log_weights.exp(), mixture.means
    return float(weights @ (mixture.variances + (means - weights @ means) ** 2))


def refine(
    function: Callable[[Tensor], Tensor], nodes: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Quarter the cells between nodes until a function is linear at three points inside each."""
    values = function(nodes)
    shares = torch.linspace(0, 1, 5, dtype=nodes.dtype)[:, None]
    known = [(nodes, values)]
    starts, widths = nodes[:-1], nodes.diff()
    left, rise = values[:-1], values.diff()
    count = len(nodes)
    for _ in range(MAX_QUARTERINGS):
        if not starts.numel() or count >= MAX_NODES:
            break
        inner = starts + widths * shares[1:-1]
        exact = function(inner)
        known.append((inner.flatten(), exact.flatten()))
        count += inner.numel()
        curved = ((exact - left - rise * shares[1:-1]).abs() > tolerance).any(0)
        corners = torch.cat([left[None], exact, (left + rise)[None]])[:, curved]
        starts = (starts + widths * shares[:-1])[:, curved].flatten()
        widths = (widths[curved] / 4).expand(4, -1).flatten()
        left, rise = corners[:-1].flatten(), corners.diff(dim=0).flatten()
    locations, order = torch.cat([part[0] for part in known]).sort()
    return locations, torch.cat([part[1] for part in known])[order]
