"""Keeping a noise scale that follows the prediction from running away with it.

At the optimum of the balanced loss the location p(x) satisfies m(p(x)) = E_train[y | x], with the m
of ``posthoc``. A constant sigma makes m increase from the smallest label to the largest. A sigma
that grows with p flattens the training posterior faster than p moves it: beyond some p, m falls
back towards the mean label, and labels above its maximum have no location at all. Their gradient
pushes p up for ever.
"""

from typing import NamedTuple

import torch
from torch import nn

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


class NoiseCheck(NamedTuple):
    """Whether m increases over the label range, reaches all labels, and between which it runs."""

    increasing: bool
    reaches: bool
    lowest: float
    highest: float

    @property
    def passes(self) -> bool:
        """Whether every label has a location."""
        return self.increasing and self.reaches

    def failure(self) -> str:
        """Say which labels have no location."""
        if not self.increasing:
            return "the predicted label does not grow with the network's output"
        return f"only labels from {self.lowest:.2f} to {self.highest:.2f} can be predicted"


def check_noise(
    sigma_of: SigmaOf, prior: GaussianMixture | Histogram, label_range: tuple[float, float]
) -> NoiseCheck:
    """Check that every label has a location under a noise scale, a function of CPU locations."""
    low, high = checked_range(label_range)
    mixture = GaussianMixture.of_scalars(prior)
    reach, fall = REACH_SHARE * (high - low), FALL_SHARE * (high - low)
    present = mixture.weights > 0
    smallest, largest = low, high
    if not (mixture.variances[present] > 0).any():
        bottom, top = mixture.means[present].aminmax()
        smallest, largest = max(low, float(bottom)), min(high, float(top))
    table = MeanTable(mixture, sigma_of, label_range, fall / 2)
    highest, fallen_at = table.climb(1, largest - reach, fall)
    lowest, _ = table.climb(-1, smallest + reach, fall)
    reaches = lowest <= smallest + reach and highest >= largest - reach
    return NoiseCheck(fallen_at > high, reaches, max(lowest, smallest), min(highest, largest))


def project_slope(
    noise: DepthNoise, prior: GaussianMixture | Histogram, label_range: tuple[float, float]
) -> str | None:
    """Reduce the slope b of a depth-dependent noise to the largest share that passes.

    Returned is what was wrong and what b is now, None where nothing had to be changed.
    """
    sigma_of = _on_cpu(noise)
    check = check_noise(sigma_of, prior, label_range)
    if check.passes:
        return None
    slope = noise.slope.detach().clone()
    kept, failing = 0.0, 1.0
    with torch.no_grad():
        for _ in range(BISECTIONS):
            share = (kept + failing) / 2
            noise.slope.copy_(share * slope)
            if check_noise(sigma_of, prior, label_range).passes:
                kept = share
            else:
                failing = share
        noise.slope.copy_(kept * slope)
    return (
        f"the noise slope b = {slope.item():.4g} was reduced to {noise.slope.item():.4g}: with it "
        f"{check.failure()}; a smaller max_sigma (now {noise.max_sigma:g}) allows a steeper slope"
    )


def guard_noise(
    criterion: nn.Module, histogram: Histogram | None, label_range: tuple[float, float]
) -> str | None:
    """Check a loss's noise, project it back where it is our ``DepthNoise``, say what was done.

    The prior and the label range are the loss's own; for losses without, such as BMC, the given
    ones. Losses whose noise does not follow the predictions pass; any noise counts as Gaussian.
    """
    noise = getattr(criterion, "noise", None)
    prior = getattr(criterion, "prior", None) or histogram
    if not isinstance(noise, NoiseModule) or not noise.depends_on_preds or prior is None:
        return None
    if getattr(criterion, "event_dim", None):
        return None
    limits = getattr(criterion, "label_range", None) or label_range
    if isinstance(noise, DepthNoise):
        return project_slope(noise, prior, limits)
    check = check_noise(_on_cpu(noise), prior, limits)
    if check.passes:
        return None
    return (
        f"with the noise {type(noise).__name__} {check.failure()}; let sigma grow less with the "
        "prediction, or cap it"
    )


def _on_cpu(noise: NoiseModule) -> SigmaOf:
    """Return a noise module, which may be on another device, for locations on the CPU."""
    state = [*noise.parameters(), *noise.buffers()]
    device = state[0].device if state else None
    return lambda locations: noise(locations.to(device)).detach().cpu()
