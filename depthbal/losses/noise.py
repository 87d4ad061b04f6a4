"""The noise scale sigma of Balanced MSE: fixed, learned, or growing with the predicted label."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthbal.losses.base import checked_range
from depthbal.losses.buffers import Unrounded
from depthbal.losses.evidence import SigmaOf
from depthbal.losses.posthoc import MeanTable
from depthbal.priors import GaussianMixture, Histogram

SIGMA_BOUNDS = (1e-3, 1e3)  # of a learned noise scale, as shares of its first value

# m approaches the largest of point masses only asymptotically: what counts as reaching it is this
# share of the label range, about a bin of the depth benchmark (0.1 of 9.3 m).
REACH_SHARE = 0.01
# A fall of m by less than this share of the range is rounding; nobody could measure it.
FALL_SHARE = 1e-6
BISECTIONS = 14  # a slope is kept to a ten-thousandth of the one that failed

NoiseKind = Literal["fixed", "learned", "depth"]


class NoiseModule(Unrounded, ABC):
    """A noise scale: ``noise(preds)`` gives sigma > 0 in label units.

    Derive from it for a noise of your own: return one element, shape (), or one per label, and say
    so in ``depends_on_preds``. A checkpoint with a noise of a foreign class is opened with the loss
    handed over.

    Example:
        >>> class GrowingNoise(NoiseModule):
        ...     depends_on_preds = True
        ...
        ...     def forward(self, preds):
        ...         return 0.5 + 0.05 * preds.clamp(0, 10)
        >>> GrowingNoise()(torch.tensor([2.0, 10.0]))
        tensor([0.6000, 1.0000])
    """

    depends_on_preds: ClassVar[bool] = False
    init_args: dict[str, Any] | None = None

    @abstractmethod
    def forward(self, preds: Tensor) -> Tensor:
        """Return sigma for predictions of any shape: shape (), or that of the labels."""


class FixedNoise(NoiseModule):
    """A constant noise scale, sigma > 0 in label units, saved with the loss.

    Example:
        >>> FixedNoise(0.5)(torch.zeros(3)).item()
        0.5
    """

    noise_sigma: Tensor

    def __init__(self, noise_sigma: float = 1.0) -> None:
        super().__init__()
        if not 1e-15 < noise_sigma < 1e15:  # so that float32 can hold its square
            raise ValueError(
                f"expected a positive noise_sigma in label units, below 1e15, got {noise_sigma}"
            )
        self.init_args = {"noise_sigma": noise_sigma}
        self.register_buffer("noise_sigma", torch.tensor(noise_sigma, dtype=torch.float64))

    def forward(self, preds: Tensor) -> Tensor:
        """Return sigma, shape ()."""
        return self.noise_sigma


class LearnedNoise(NoiseModule):
    """A noise scale learned with the network, sigma = exp(log_sigma), in label units.

    It stays within ``bounds``, by default a thousandth and a thousand times of the first value. The
    parameter is projected back into them before each use, instead of being clamped in the graph,
    so that the gradient can always lead away from a bound.

    Example:
        >>> round(LearnedNoise(2.0)(torch.zeros(3)).item(), 6)
        2.0
    """

    def __init__(self, noise_sigma: float = 1.0, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        low, high = bounds or (share * noise_sigma for share in SIGMA_BOUNDS)
        if not 0 < low <= noise_sigma <= high < math.inf:
            raise ValueError(
                f"expected a positive noise_sigma within its bounds, got {noise_sigma}"
            )
        self.init_args = {"noise_sigma": noise_sigma, "bounds": [low, high]}
        self.log_bounds = math.log(low), math.log(high)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(noise_sigma)))

    def forward(self, preds: Tensor) -> Tensor:
        """Return sigma, shape (), with a gradient to ``log_sigma``."""
        with torch.no_grad():
            self.log_sigma.clamp_(*self.log_bounds)
        return self.log_sigma.double().exp()


class DepthNoise(NoiseModule):
    """A noise scale that grows with the prediction, as that of depth does.

        sigma(p) = min(softplus(a + b p), max_sigma),   at least noise_sigma / 1000

    The slope b begins at ``slope`` and a such that sigma(0) is ``noise_sigma``; both are learned
    unless ``learned`` is False. The cap ``max_sigma`` in label units, by default twice
    ``noise_sigma``, must be above it. Keep it: predictions and an uncapped proportional sigma push
    each other up (0.25 p diverges on NYU depth, 0.15 p never reaches the farthest labels), which
    training watches.

    Example:
        >>> DepthNoise(0.5, slope=0.1, learned=False)(torch.tensor([0.0, 5.0, 50.0]))
        tensor([0.5000, 0.7273, 1.0000])
    """

    depends_on_preds = True

    def __init__(
        self,
        noise_sigma: float = 1.0,
        slope: float = 0.0,
        max_sigma: float | None = None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        cap = 2 * noise_sigma if max_sigma is None else max_sigma
        if not (math.isfinite(slope) and 0 < noise_sigma < cap < 1e15):
            raise ValueError(
                "expected a finite slope and a positive noise_sigma below max_sigma, got "
                f"{slope}, {noise_sigma} and {cap}"
            )
        self.min_sigma, self.max_sigma = SIGMA_BOUNDS[0] * noise_sigma, cap
        self.intercept_bounds = _inverse_softplus(self.min_sigma), _inverse_softplus(cap)
        self.init_args = {"noise_sigma": noise_sigma, "slope": slope}
        self.init_args |= {"max_sigma": max_sigma, "learned": learned}
        self.intercept, self.slope = (
            nn.Parameter(torch.tensor(float(value)), requires_grad=learned)
            for value in (_inverse_softplus(noise_sigma), slope)
        )

    def forward(self, preds: Tensor) -> Tensor:
        """Return sigma of the shape of ``preds``, with gradients to a, b and the predictions."""
        with torch.no_grad():  # not where the cap holds for every label: no gradient leads back
            self.intercept.clamp_(*self.intercept_bounds)
        sigma = functional.softplus(self.intercept + self.slope * preds)
        return sigma.clamp(self.min_sigma, self.max_sigma)


NOISES = dict[str, type[NoiseModule]](fixed=FixedNoise, learned=LearnedNoise, depth=DepthNoise)


def build_noise(
    noise: NoiseKind | NoiseModule | dict[str, Any] | None, noise_sigma: float
) -> NoiseModule:
    """Return the noise that a kind, a module, or what ``describe_noise`` returned stands for."""
    if isinstance(noise, NoiseModule):
        return noise
    if isinstance(noise, dict):
        return NOISES[noise["kind"]](**noise["init_args"])
    if noise not in NOISES:
        raise ValueError(
            f"expected noise {', '.join(NOISES)} or a NoiseModule, got {noise!r}; a checkpoint's "
            "None stands for a module of a class that is not ours: hand over a loss built with it"
        )
    return NOISES[noise](noise_sigma)


def describe_noise(noise: NoiseKind | NoiseModule | dict[str, Any]) -> Any:
    """Return the argument in JSON-able form; None for a module of a foreign class."""
    if not isinstance(noise, NoiseModule):
        return noise
    kind = next((kind for kind, cls in NOISES.items() if type(noise) is cls), None)
    return None if kind is None else {"kind": kind, "init_args": noise.init_args}


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


# ---- keeping noise that follows the prediction from running away with it ----
#
# At the optimum of the balanced loss m(p(x)) = E_train[y | x], with the m of ``posthoc``. A
# constant sigma makes m increase from the smallest label to the largest. One that grows with p
# flattens the training posterior faster than p moves it: beyond some p, m falls back towards the
# mean label, and labels above its maximum have no location at all. Their gradient pushes p up for
# ever.


def following_noise(criterion: nn.Module) -> NoiseModule | None:
    """Return a loss's noise module where it follows scalar predictions, else None."""
    noise = getattr(criterion, "noise", None)
    follows = isinstance(noise, NoiseModule) and noise.depends_on_preds
    return noise if follows and not getattr(criterion, "event_dim", 0) else None


def check_noise(
    sigma_of: SigmaOf, prior: GaussianMixture | Histogram, label_range: tuple[float, float]
) -> str | None:
    """Say which labels have no location, if any, under a noise scale, of locations on the CPU."""
    low, high = checked_range(label_range)
    mixture = GaussianMixture.of_scalars(prior)
    reach, fall = REACH_SHARE * (high - low), FALL_SHARE * (high - low)
    present = mixture.weights > 0
    smallest, largest = low, high
    if not (mixture.variances[present] > 0).any():
        bottom, top = mixture.means[present].aminmax()
        smallest, largest = max(low, float(bottom)), min(high, float(top))
    table = MeanTable(mixture, sigma_of, label_range, fall / 2)
    places, means = table.locations, table.means
    highest, fallen_at = _climb(places, means, (low, high), largest - reach, fall)
    goal = -(smallest + reach)
    lowest = -_climb(-places.flip(0), -means.flip(0), (-low, -low), goal, fall)[0]
    if fallen_at <= high:
        return "the predicted label does not grow with the network's output"
    if lowest <= smallest + reach and highest >= largest - reach:
        return None
    lowest, highest = max(lowest, smallest), min(highest, largest)
    return f"only labels from {lowest:.2f} to {highest:.2f} can be predicted"


def _climb(
    places: Tensor, means: Tensor, ends: tuple[float, float], goal: float, fall: float
) -> tuple[float, float]:
    """Return how far m gets from the low end to the goal, and where it falls, or infinity."""
    places, means = places[places >= ends[0]], means[places >= ends[0]]
    highest = means.cummax(0).values
    arrived = min(int((highest < goal).sum()), len(places) - 1)
    falls = (highest - means > fall) & (places <= max(ends[1], float(places[arrived])))
    if falls.any():
        first = int(falls.int().argmax())
        return float(highest[first]), float(places[first])
    return float(highest[arrived]), math.inf


def guard_noise(
    criterion: nn.Module, histogram: Histogram | None, label_range: tuple[float, float]
) -> str | None:
    """Check a loss's noise, reduce the slope of our ``DepthNoise`` until it passes, and say so.

    The prior and the label range are the loss's own; for losses without, such as BMC, the given
    ones. Losses whose noise does not follow the predictions pass; any noise counts as Gaussian.
    """
    noise, prior = following_noise(criterion), getattr(criterion, "prior", None) or histogram
    if noise is None or prior is None:
        return None
    limits = getattr(criterion, "label_range", None) or label_range
    state = [*noise.parameters(), *noise.buffers()]
    device = state[0].device if state else None

    def check() -> str | None:
        return check_noise(lambda p: noise(p.to(device)).detach().cpu(), prior, limits)

    failure = check()
    if failure is None:
        return None
    if not isinstance(noise, DepthNoise):
        return (
            f"with the noise {type(noise).__name__} {failure}; let sigma grow less with the "
            "prediction, or cap it"
        )
    slope = noise.slope.detach().clone()
    kept, failing = 0.0, 1.0
    with torch.no_grad():
        for _ in range(BISECTIONS):
            share = (kept + failing) / 2
            noise.slope.copy_(share * slope)
            kept, failing = (share, failing) if check() is None else (kept, share)
        noise.slope.copy_(kept * slope)
    return (
        f"the noise slope b = {slope.item():.4g} was reduced to {noise.slope.item():.4g}: with it "
        f"{failure}; a smaller max_sigma (now {noise.max_sigma:g}) allows a steeper slope"
    )
