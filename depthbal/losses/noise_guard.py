"""Keeping a noise scale that follows the prediction from running away with it.

At the optimum of the balanced loss m(p(x)) = E_train[y | x], with the m of ``posthoc``. A constant
sigma makes m increase from the smallest label to the largest. One that grows with p flattens the
training posterior faster than p moves it: beyond some p, m falls back towards the mean label, and
labels above its maximum have no location at all. Their gradient pushes p up for ever.
"""

import math

import torch
from torch import Tensor, nn

from depthbal.losses.base import checked_range
from depthbal.losses.kernel.evidence import SigmaOf
from depthbal.losses.noise import DepthNoise, NoiseModule
from depthbal.losses.posthoc import MeanTable
from depthbal.priors import GaussianMixture, Histogram

# m approaches the largest of point masses only asymptotically: what counts as reaching it is this
# share of the label range, about a bin of the depth benchmark (0.1 of 9.3 m).
REACH_SHARE = 0.01
# A fall of m by less than this share of the range is rounding; nobody could measure it.
FALL_SHARE = 1e-6
BISECTIONS = 20


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
    noise = getattr(criterion, "noise", None)
    prior = getattr(criterion, "prior", None) or histogram
    if not isinstance(noise, NoiseModule) or not noise.depends_on_preds:
        return None
    if prior is None or getattr(criterion, "event_dim", None):
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
