"""Keeping a noise scale that follows the prediction from running away with it.

At the optimum of the balanced loss the location p(x) satisfies m(p(x)) = E_train[y | x] with

    m(p) = p + sigma(p)^2 d log E(p) / dp      (sigma held fixed in the derivative, as in the loss)

A constant sigma makes m increase from the smallest label to the largest. A sigma that grows with p
flattens the training posterior faster than p moves it: beyond some p, m falls back towards the mean
label, and labels above its maximum have no location at all. Their gradient pushes p up for ever.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from depthbal.losses.kernel.evidence import SigmaOf
from depthbal.losses.mean_table import MeanTable
from depthbal.losses.noise import DepthNoise, NoiseModule
from depthbal.losses.readout import require_increasing
from depthbal.priors import GaussianMixture, Histogram

# m approaches the largest of point masses only asymptotically: what counts as reaching it is this
# share of the label range, about a bin of the depth benchmark (0.1 of 9.3 m).
REACH_SHARE = 0.01
# A fall of m by less than this share of the range is rounding; nobody could measure it.
FALL_SHARE = 1e-6
BISECTIONS = 20


class NoiseCheck(NamedTuple):
    """What the map m from locations to mean training labels does on the branch through the range.

    increasing: m increases over the label range.
    reaches: the branch on which m increases comes within a hundredth of the range of both the
        smallest and the largest label.
    lowest, highest: the labels between which the branch is known to run; the search stops where it
        falls, or once it has reached the labels at the ends.
    """

    increasing: bool
    reaches: bool
    lowest: float
    highest: float

    @property
    def passes(self) -> bool:
        """Whether every label has a location."""
        return self.increasing and self.reaches


def check_noise(
    sigma_of: SigmaOf, prior: GaussianMixture | Histogram, label_range: tuple[float, float]
) -> NoiseCheck:
    """Check that every label has a location under a noise scale.

    m(p) is tabulated over the label range and beyond it, until it reaches the labels at the ends or
    falls.

    Args:
        sigma_of: From locations (n,) to sigma > 0, () or (n,), label units; a noise module is one.
        prior: Distribution of the training labels; a histogram is its bins' centres.
        label_range: Ends (lo, hi) of the label range.

    Raises:
        ValueError: A range that is not increasing, or a prior of vectors.

    Example:
        >>> labels = Histogram([0.0, 1.0, 2.0, 3.0, 4.0], [60, 30, 9, 1])
        >>> check_noise(lambda p: torch.tensor(1.0), labels, (0.0, 4.0)).passes
        True
        >>> check_noise(lambda p: 0.5 * p, labels, (0.1, 4.0)).passes
        False
    """
    low, high = require_increasing(label_range)
    mixture = GaussianMixture.from_histogram(prior) if isinstance(prior, Histogram) else prior
    if mixture.event_dim:
        raise ValueError(f"expected a prior of scalar labels, got {tuple(mixture.means.shape)}")
    reach, fall = REACH_SHARE * (high - low), FALL_SHARE * (high - low)
    smallest, largest = _ends(mixture, label_range)
    table = MeanTable(mixture, lambda p: sigma_of(p).detach(), label_range, fall / 2)
    highest, fallen_at = table.climb(1, largest - reach, fall)
    lowest, _ = table.climb(-1, smallest + reach, fall)
    reaches = lowest <= smallest + reach and highest >= largest - reach
    return NoiseCheck(fallen_at > high, reaches, max(lowest, smallest), min(highest, largest))


def project_slope(
    noise: DepthNoise, prior: GaussianMixture | Histogram, label_range: tuple[float, float]
) -> str | None:
    """Reduce the slope b of a depth-dependent noise until every label has a location.

    The largest share of b that passes ``check_noise`` is found by bisection; b = 0 is a constant
    sigma, which passes. The intercept a stays.

    Returns:
        What was wrong and what b is now, or None where nothing had to be changed.
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
        f"{describe_failure(check)}; a smaller max_sigma (now {noise.max_sigma:g}) allows a "
        "steeper slope"
    )


def guard_noise(
    criterion: nn.Module, histogram: Histogram | None, label_range: tuple[float, float]
) -> str | None:
    """Check a loss's noise, and project it back where it is our ``DepthNoise``.

    The prior is the loss's own; losses that take it from the batch, such as BMC, are checked with
    the histogram. Another noise family than the Gaussian is checked as if it were Gaussian.

    Args:
        criterion: Any loss; those whose noise does not follow the predictions pass.
        histogram: Of the training labels, or None where it is unknown.
        label_range: Ends (lo, hi) for a loss that has no ``label_range``.

    Returns:
        What to tell the user, or None.
    """
    noise = getattr(criterion, "noise", None)
    prior = getattr(criterion, "prior", None) or histogram
    if not isinstance(noise, NoiseModule) or not noise.depends_on_preds or prior is None:
        return None
    if getattr(criterion, "event_dim", 0):
        return None
    limits = getattr(criterion, "label_range", None) or label_range
    if isinstance(noise, DepthNoise):
        return project_slope(noise, prior, limits)
    check = check_noise(_on_cpu(noise), prior, limits)
    if check.passes:
        return None
    return (
        f"with the noise {type(noise).__name__} {describe_failure(check)}; let sigma grow less "
        "with the prediction, or cap it"
    )


def describe_failure(check: NoiseCheck) -> str:
    """Say which labels have no location."""
    if not check.increasing:
        return "the predicted label does not grow with the network's output"
    return f"only labels from {check.lowest:.2f} to {check.highest:.2f} can be predicted"


def _on_cpu(noise: NoiseModule) -> SigmaOf:
    """Return a noise module, which may be on another device, for locations on the CPU."""
    state = [*noise.parameters(), *noise.buffers()]

    def sigma_of(locations: Tensor) -> Tensor:
        sigma: Tensor = noise(locations.to(state[0].device) if state else locations)
        return sigma.detach().cpu()

    return sigma_of


def _ends(prior: GaussianMixture, label_range: tuple[float, float]) -> tuple[float, float]:
    """Return the smallest and largest label that must be reached."""
    present = prior.weights > 0
    low, high = label_range
    if (prior.variances[present] > 0).any():
        return low, high
    bottom, top = (float(end) for end in prior.means[present].aminmax())
    return max(low, bottom), min(high, top)
