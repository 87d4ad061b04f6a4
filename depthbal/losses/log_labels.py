"""Losses of the labels' logarithms, read out in the label itself."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from depthbal.losses.balanced import BalancedMSELoss
from depthbal.losses.base import RegressionLoss, checked_range
from depthbal.losses.baselines import FocalRLoss, HuberLoss, L1Loss, MSELoss, log_above
from depthbal.losses.combined import described, made
from depthbal.losses.families import GaussianFamily
from depthbal.losses.posthoc import BalanceMap
from depthbal.losses.readout import TOLERANCE, central_interval, on_range
from depthbal.losses.reduction import Mask, compute_dtype, hide
from depthbal.priors import GaussianMixture, Histogram, World

# Of the logarithm, for a world that is said in the label: p(log y) = y p(y).
WORLDS = {"uniform": "exp_uniform", "log_uniform": "uniform"}
FAR = 1e4  # sigmas beyond the range from which on a location says no more
SMALLEST, LARGEST = 1e-30, 80.0  # a label, and a logarithm whose label float32 can hold


class LogLabelLoss(RegressionLoss):
    """Any loss of u = log y in the place of y: errors are ratios, and sigma is a relative error.

        L(p, y) = loss(log p, log y),   E[y | x] = integral of e^u p_target(u | x) du

    Predictions and labels stay in label units; the network has best a head of kind ``"log"``. The
    prior is that of the logarithms. A balanced loss's world is said in the label as ever:
    ``relative_to="uniform"`` (metres) or ``"log_uniform"`` (logarithms of metres). Its posterior is
    N(log p, s^2) of the logarithm on the label range, whose mean label is exact in closed form:

        e^(log p + s^2 / 2) [Phi(b - s) - Phi(a - s)] / [Phi(b) - Phi(a)],
        a = (log lo - log p) / s,  b = (log hi - log p) / s

    Args:
        loss: Squared, absolute, Huber or focal error, or a balanced loss of Gaussian noise with one
            sigma: ``init_noise_sigma`` and all others of its numbers are in units of the logarithm,
            0.1 being about 10 %.
        label_range: Ends (lo, hi) of the label range in label units, lo > 0.
        floor: Label below which the logarithm of a prediction becomes linear, > 0.

    Raises:
        ValueError: Another loss, noise that follows the prediction, or no positive range.

    Example:
        >>> from depthbal.losses import MSELoss
        >>> LogLabelLoss(MSELoss())(torch.tensor([2.0, 40.0]), torch.tensor([1.0, 20.0]))
        tensor(0.4805)
    """

    def __init__(
        self,
        loss: RegressionLoss,
        label_range: tuple[float, float] | None = None,
        floor: float = 0.01,
    ) -> None:
        inner = made(loss)
        super().__init__(reduction=inner.reduction)
        plain = MSELoss, L1Loss, HuberLoss, FocalRLoss
        gaussian = isinstance(inner, BalancedMSELoss) and isinstance(inner.family, GaussianFamily)
        if not (gaussian or isinstance(inner, plain)) or inner.event_dim:
            raise ValueError(
                "expected a loss of scalar labels for their logarithms, a plain one of errors or a "
                f"balanced one of Gaussian noise, got {type(inner).__name__}"
            )
        if isinstance(inner, BalancedMSELoss):
            if inner.noise.depends_on_preds:
                raise ValueError(
                    "expected one sigma for logarithms, where the same one is a relative error, "
                    "got noise that follows the prediction: noise fixed or learned"
                )
            world = inner.init_args.get("relative_to", "uniform")
            if world not in WORLDS:
                raise ValueError(f"expected relative_to {' or '.join(WORLDS)}, got {world!r}")
            inner.relative_to = WORLDS[world]
        if not floor > 0:
            raise ValueError(f"expected a positive floor, got {floor}")
        self.loss, self.floor, self.balances = inner, floor, inner.balances
        self.init_args = {"loss": described(inner), "label_range": None, "floor": floor}
        label_range = label_range or inner.label_range
        if label_range is not None:
            self.set_label_range(label_range)

    def forward(
        self, preds: Tensor, target: Tensor, mask: Mask = None, beyond: Mask = None
    ) -> Tensor:
        """Return the reduced loss; see ``RegressionLoss.forward``."""
        counts = mask if mask is None or beyond is None else mask | beyond
        known = mask if beyond is None else ~beyond if mask is None else mask & ~beyond
        with torch.autocast(preds.device.type, enabled=False):
            # what does not count must not send a gradient of NaN
            logs = log_above(hide(preds.to(compute_dtype(preds)), counts), self.floor)
            labels = target.to(logs.dtype)
            labels = (labels if known is None else torch.where(known, labels, 1)).log()
            return self.loss(logs, labels, mask, beyond)  # type: ignore[no-any-return]

    elementwise = forward  # type: ignore[assignment]

    # ---- prior and range ----

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Take the distribution of the labels' logarithms from a histogram of the labels."""
        if not isinstance(prior, Histogram):
            raise ValueError(f"expected a Histogram of labels, got a {type(prior).__name__}")
        self.loss.set_prior(prior.logarithms())

    def set_beyond(self, prior: Histogram) -> None:
        """Take how common labels beyond the label range are."""
        if prior.beyond:
            self.loss.set_beyond(prior.logarithms())

    def set_label_range(self, label_range: tuple[float, float]) -> None:
        """Take the ends (lo, hi) of the label range, lo > 0."""
        self.loss.set_label_range(log_range(label_range))
        self.label_range = self.init_args["label_range"] = checked_range(label_range)

    # ---- read-out ----

    def readout(self, preds: Tensor) -> Tensor:
        """Return the mean label of the balanced world; of a plain loss the prediction itself."""
        sigma, ends = self.noise_sigma, self.loss.label_range
        if sigma is None or ends is None:
            return preds
        return mean_of_logarithm(self._logs(preds), sigma, ends)

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the central 68.27 % interval in label units; None of a plain loss."""
        ends = self.loss.interval(self._logs(preds))
        return ends and (ends[0].exp(), ends[1].exp())

    def _logs(self, preds: Tensor) -> Tensor:
        return log_above(preds.detach().to(compute_dtype(preds)), self.floor)

    @property
    def noise(self) -> Any:
        """The noise module in units of the logarithm, None without one."""
        return getattr(self.loss, "noise", None)

    def facts(self) -> dict[str, Any]:
        """Return the noise scale and its unit."""
        found = super().facts()
        return found and {**found, "noise_unit": "of logarithms"}

    @property
    def prior(self) -> Any:
        """The prior of the logarithms that is in use, None without one."""
        return getattr(self.loss, "prior", None)


def log_range(label_range: tuple[float, float]) -> tuple[float, float]:
    """Return the logarithms of the ends of a label range; a ValueError unless it is positive."""
    low, high = checked_range(label_range)
    if not low > 0:
        raise ValueError(f"expected a label_range above 0 for logarithms, got {low:g} to {high:g}")
    return math.log(low), math.log(high)


def mean_of_logarithm(logs: Tensor, sigma: Tensor | float, ends: tuple[float, float]) -> Tensor:
    """Return E[e^u], u of N(p, sigma^2) truncated to the ends, for locations p, elementwise."""
    low, high = ends

    def exact(location: Tensor, scale: Tensor) -> Tensor:
        p = torch.maximum(torch.minimum(location, high + FAR * scale), low - FAR * scale)
        square = scale**2
        masses = (_log_mass(p + shift, scale, low, high) for shift in (square, 0 * square))
        return (p + square / 2 + next(masses) - next(masses))[None]

    return on_range(exact, logs, sigma, ends, TOLERANCE)[0].exp()


def _log_mass(mean: Tensor, sigma: Tensor, low: float, high: float) -> Tensor:
    """Return log [Phi(b) - Phi(a)], computed in the tail that both ends are nearer to."""
    a, b = (low - mean) / sigma, (high - mean) / sigma
    mirrored = a + b > 0
    near, far = torch.where(mirrored, -a, b), torch.where(mirrored, -b, a)
    top: Tensor = torch.special.log_ndtr(near)
    share: Tensor = -torch.expm1(torch.special.log_ndtr(far) - top)
    return top + share.log()


class LogBalanceMap(BalanceMap):
    """The map of ``balance_predictions`` for a plain loss of logarithms, such as e^E[log y | x].

    Sigma is that of the logarithm; prior, range (lo > 0) and world are said in the label.
    """

    way: ClassVar[str] = "theorem of logarithms"

    def __init__(
        self,
        prior: Histogram,
        noise_sigma: Tensor | float,
        label_range: tuple[float, float],
        world: str = "uniform",
    ) -> None:
        if world not in WORLDS:
            raise ValueError(f"expected the world {' or '.join(WORLDS)}, got {world!r}")
        self._labels, self._world, self._ends = prior, world, log_range(label_range)
        kernel = prior.logarithms().relative_to(WORLDS[world])
        super().__init__(kernel, noise_sigma, self._ends)
        self.label_range = label_range

    def relative_to(self, world: World | str) -> "LogBalanceMap":
        """Return the map that balances for another world."""
        assert self.label_range is not None
        return LogBalanceMap(self._labels, self._sigma, self.label_range, world)

    def locations(self, preds: Tensor) -> Tensor:
        """Return e^p of the locations p."""
        return self._locate(preds).clamp(max=LARGEST).exp().to(compute_dtype(preds))

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the 68.27 % interval of the label given the prediction."""
        ends = central_interval(self._locate(preds), self._sigma, self._ends)
        lower, upper = (end.exp().to(compute_dtype(preds)) for end in ends)
        return lower, upper

    def _balance(self, preds: Tensor) -> Tensor:
        found = mean_of_logarithm(self._locate(preds), self._sigma, self._ends)
        return found.to(compute_dtype(preds))

    def _locate(self, preds: Tensor) -> Tensor:
        return super()._locate(self.require_finite(preds).double().clamp(min=SMALLEST).log())

    def parameters(self) -> dict[str, Any]:
        """Return what makes the map again but for its range, JSON-able."""
        stored = {"noise_sigma": self._sigma, "prior": self._labels.to_dict()}
        return {**stored, "world": self._world}
