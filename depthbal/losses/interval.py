"""The interval around a balanced prediction: what sigma says about where the label lies."""

import math

import torch
from torch import Tensor

from depthbal.losses.balanced import BalancedMSELoss
from depthbal.losses.families import GaussianFamily
from depthbal.losses.readout import FAR, on_range
from depthbal.losses.reduction import compute_dtype

LEVEL = math.erf(math.sqrt(0.5))  # of a normal within one standard deviation: 0.6827
NEWTON_STEPS = 6  # two more than any location needs in float64
TOLERANCE = 1e-5  # of a table, as a share of the label range


def central_interval(
    preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Return the central 68.27 % interval of N(p, sigma^2) truncated to the label range.

        lower, upper = F^-1((1 - level) / 2), F^-1((1 + level) / 2),   level = erf(1 / sqrt 2)

    with F the distribution function of the truncated normal; without a label range p - sigma and
    p + sigma. Of this posterior ``truncated_normal_mean``, whose arguments, types and errors these
    are, is the mean. A calibrated sigma covers 68.27 % of the labels of a balanced world: over all
    of them, not over those of every size. A table is checked to be within 1e-5 of the label range.

    Example:
        >>> central_interval(torch.tensor([5.0, 24.8]), 1.0, (0.7, 10.0))
        (tensor([4.0000, 9.8767]), tensor([6.0000, 9.9884]))
    """
    if label_range is None:
        sigma = torch.as_tensor(noise_sigma, device=preds.device).detach().double()
        lower, upper = preds.detach() - sigma, preds.detach() + sigma
        return lower.to(compute_dtype(preds)), upper.to(compute_dtype(preds))

    def exact(location: Tensor, sigma: Tensor) -> Tensor:
        tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        return torch.stack([_quantile(location, sigma, label_range, tail) for tail in tails])

    lower, upper = on_range(exact, preds, noise_sigma, label_range, TOLERANCE)
    return lower, upper


def interval_of_loss(criterion: object, preds: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return ``central_interval`` with a loss's own sigma and label range.

    None for a loss without sigma, of vectors, or with another family of noise than the normal.
    """
    if not isinstance(criterion, BalancedMSELoss) or criterion.event_dim:
        return None
    if not isinstance(criterion.family, GaussianFamily):
        return None
    return central_interval(preds, criterion.noise(preds.detach()), criterion.label_range)


def _quantile(
    location: Tensor, sigma: Tensor, label_range: tuple[float, float], probability: float
) -> Tensor:
    """Return F^-1(probability) of N(location, sigma^2) truncated to the range, float64.

        Q(z) = Q(a) - q (Q(a) - Q(b)),   y = location + sigma z

    with Q the upper tail of the standard normal, a and b the standardised ends and q the
    probability, solved for z in the logarithm, where no tail underflows.
    """
    low, high = label_range
    middle, half = (low + high) / 2, (high - low) / 2
    # Locations above the middle are mirrored: a is then the end that is nearer in density.
    mirrored = location > middle
    below = -(location - middle).abs()
    q = torch.full_like(location, probability)
    q = torch.where(mirrored, 1 - q, q)
    a, width = (-half - below) / sigma, 2 * half / sigma
    share = -torch.expm1(_log_tail_ratio(a, width))  # 1 - Q(b) / Q(a)
    fall = torch.log1p(-q * share)  # ln Q(z) / Q(a)
    near = -torch.special.ndtri((torch.special.log_ndtr(-a) + fall).exp())
    # In the far tail by Newton's method on ln Q.
    start = a.clamp(0, FAR)
    wanted = torch.special.log_ndtr(-start) + fall
    z = (start.square() - 2 * fall).sqrt()
    for _ in range(NEWTON_STEPS):
        hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(z * math.sqrt(0.5))
        z = z + (torch.special.log_ndtr(-z) - wanted) / hazard
    distance = below + sigma * torch.where(a > 0, z, near)
    # Far outside, where a sum loses its digits, the density on the range is exponential.
    distance = torch.where(a > FAR, -half - sigma * fall / a.clamp(min=FAR), distance)
    # On ranges far narrower than sigma it is flat.
    distance = torch.where(share < 1e-8, -half + 2 * half * q, distance).clamp(-half, half)
    return middle + torch.where(mirrored, -distance, distance)


def _log_tail_ratio(a: Tensor, width: Tensor) -> Tensor:
    """Return ln Q(a + width) / Q(a), without cancellation where the tail is far."""
    root = math.sqrt(0.5)
    near = a.clamp(min=0)
    scaled = torch.special.erfcx((near + width) * root) / torch.special.erfcx(near * root)
    outside = scaled.log() - width * (near + width / 2)
    inside = torch.special.log_ndtr(-a - width) - torch.special.log_ndtr(-a)
    return torch.where(a > 0, outside, inside)
