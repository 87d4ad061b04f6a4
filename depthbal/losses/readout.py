"""From the location that Balanced MSE learns to a prediction on the label range, and around it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import ndtri_exp
from torch import Tensor

from depthbal.losses import tables
from depthbal.losses.base import checked_range, require_positive, scale_of
from depthbal.losses.reduction import chunks, compute_dtype

if TYPE_CHECKING:
    from depthbal.losses.family import NoiseFamily

# Distance from the range, in sigma, beyond which the normal tail is an exponential to 1e-8.
FAR = 1e4
# Above this number of float32 locations a table pays on a CPU. It agrees with the formula within
# this share of the label range; float32 itself rounds labels near an end of the range by a tenth.
TABULATE_LOCATIONS = 2**16
TOLERANCE = 5e-7
LEVEL = math.erf(math.sqrt(0.5))  # of a normal within one standard deviation: 0.6827
INTERVAL_TOLERANCE = 1e-5
# Of a density by quadrature: points of a piece, the pieces' ends in lengths of decay from the
# largest density, and numbers that are alive at once.
QUADRATURE_POINTS = 16
QUADRATURE_ENDS = tuple(0.5 * 3.0**k for k in range(13))
QUADRATURE_NUMBERS = 2**17


def truncated_normal_mean(
    preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float]
) -> Tensor:
    """Return the mean of N(p, sigma^2) truncated to the label range, elementwise.

        p + sigma (phi(a) - phi(b)) / (Phi(b) - Phi(a)),  a = (lo - p) / sigma, b = (hi - p) / sigma

    Labels that live on [lo, hi] make the balanced world uniform on the range, so the posterior is a
    truncated normal and p only its location: for a certain label near an end of the range p lies
    outside it. This mean is the balanced prediction; it grows with p and stays in the range.

    Args:
        preds: Locations p of any shape, label units.
        noise_sigma: Sigma > 0 in label units, one element or the shape of ``preds``.
        label_range: Ends (lo, hi) of the label range in label units; a ValueError unless lo < hi.

    Returns:
        Labels in (lo, hi), of the shape of ``preds``, in float32 or float64, without a gradient;
        of many float32 locations on a CPU with one sigma by a table within 1e-6 of the range.

    Source: Johnson, Kotz, Balakrishnan, Continuous Univariate Distributions 1, section 10.1.

    Example:
        >>> truncated_normal_mean(torch.tensor([0.5, 5.0, 24.8]), 1.0, (0.7, 10.0))
        tensor([1.4294, 5.0000, 9.9330])
    """
    low, high = label_range

    def mean(location: Tensor, sigma: Tensor) -> Tensor:
        return _mean(location, sigma, low, high)[None]

    return on_range(mean, preds, noise_sigma, label_range, TOLERANCE)[0]


def on_range(
    exact: Callable[[Tensor, Tensor], Tensor],
    preds: Tensor,
    noise_sigma: Tensor | float,
    label_range: tuple[float, float],
    tolerance: float,
    kinks: tuple[float, ...] | None = None,
) -> list[Tensor]:
    """Return labels (curves, ...) that ``exact`` makes of float64 locations (n,) and sigma."""
    low, high = checked_range(label_range)
    locations = preds.detach().flatten().to(compute_dtype(preds))
    sigma = _scale(noise_sigma, preds)
    sigma = sigma.flatten() if sigma.ndim else sigma
    table: tables.Table | tables.PiecewiseTable | None = None
    many = locations.numel() >= TABULATE_LOCATIONS and locations.dtype == torch.float32
    if not sigma.ndim and many and preds.device.type == "cpu":
        first, last = torch.stack(locations.aminmax()).tolist()
        errors = torch.full((1, 1), tolerance * (high - low), dtype=torch.float64)
        scale = float(sigma)
        if kinks is None:
            # Where sigma exceeds the range the curves still cross it, over sigma^2 / width.
            smoothness, cells = scale * max(1.0, scale / (high - low)), len(locations) // 4
            table = tables.build(lambda p: exact(p, sigma), first, last, smoothness, cells, errors)
        else:
            near = [side * scale * end for end in QUADRATURE_ENDS for side in (-1, 1)]
            steps = errors.new_tensor([0.0, *kinks, *near])
            breaks = torch.cat([low + steps, high + steps, errors.new_tensor([first, last])])
            edges = breaks.clamp(first, last).sort().values
            few = len(locations) // 64
            table = tables.build_between(lambda p: exact(p, sigma), edges, few, errors)
    wide = locations.double()
    curves = exact(wide, sigma) if table is None else tables.interpolate(table, locations)
    return [curve.clamp(low, high).to(locations.dtype).view(preds.shape) for curve in curves]


def _scale(noise_sigma: Tensor | float, preds: Tensor) -> Tensor:
    """Return a positive sigma in float64, () or of the shape of the locations."""
    double = preds.new_empty((), dtype=torch.float64)
    sigma = scale_of(noise_sigma, preds.shape, double).detach()
    require_positive(sigma)
    return sigma


def _mean(location: Tensor, sigma: Tensor, low: float, high: float) -> Tensor:
    """Return the truncated mean of float64 locations in closed form."""
    middle, half = (low + high) / 2, (high - low) / 2
    # The formula is odd around the middle of the range: only locations at or below the middle are
    # evaluated, where the density falls from the near end towards the far one.
    below = -(location - middle).abs()
    near, width = (-half - below) / sigma, 2 * half / sigma
    decay = torch.exp(-width * (near + width / 2))
    tails = _scaled_tail(near, near + width, decay)
    mean = below + sigma * math.sqrt(2 / math.pi) * (1 - decay) / tails
    # Far outside, where the sum above loses its digits, the density on the range is exponential.
    rate = near.clamp(min=FAR)
    exponential = -half + sigma * (1 / rate - width / torch.expm1(rate * width))
    mean = torch.where(near > FAR, exponential, mean)
    # For ranges far narrower than sigma the ratio is 0 / 0 and the posterior is uniform.
    uniform = (width < 1e-4) & (near * width < 1e-4)
    mean = torch.where(uniform, torch.zeros_like(mean), mean).clamp(-half, half)
    return middle + torch.where(location > middle, -mean, mean)


def _scaled_tail(near: Tensor, far: Tensor, decay: Tensor) -> Tensor:
    """Return (Q(near) - Q(far)) * 2 exp(near^2 / 2) for near <= far, without overflow."""
    root = math.sqrt(0.5)
    outside = near > 0
    safe = torch.where(outside, near, torch.zeros_like(near))
    scaled = torch.special.erfcx(safe * root) - decay * torch.special.erfcx(far * root)
    inside = torch.where(outside, torch.zeros_like(near), near)
    plain = torch.special.erf(far * root) - torch.special.erf(inside * root)
    return torch.where(outside, scaled, plain * torch.exp(inside**2 / 2))


def mean_by_quadrature(
    family: "NoiseFamily", location: Tensor, sigma: Tensor, low: float, high: float
) -> Tensor:
    """Return the truncated means of flat float64 locations within 1e-8 of the range."""
    rule = np.polynomial.legendre.leggauss(QUADRATURE_POINTS)
    points, weights = (location.new_tensor(part) / 2 for part in rule)
    ends = location.new_tensor(QUADRATURE_ENDS)
    kinks = location.new_tensor(family.kinks)
    rows = max(1, QUADRATURE_NUMBERS // (2 * len(ends) + len(kinks) + 3) // len(points))
    means = torch.empty_like(location)
    each = sigma[:, None] if sigma.ndim else None
    for p, scale, stored in chunks(rows, location[:, None], each, means):
        scale = sigma if scale is None else scale
        peak = p.clamp(low, high)
        offset = peak - p
        decay = torch.minimum(scale.expand_as(p), 1 / family.slope(offset, scale).abs())
        # Everything is relative to the peak, so that no digit of a short decay is lost.
        near, far = low - peak, high - peak
        parts = [decay * ends, -decay * ends, kinks - offset, torch.zeros_like(p), near, far]
        bounds = torch.minimum(torch.maximum(torch.cat(parts, 1), near), far).sort(1).values
        length = bounds.diff(dim=1)[..., None]
        label = bounds[:, :-1, None] + length * (points + 0.5)
        highest = family.energy(offset, scale)[..., None]
        scale = scale[..., None] if scale.ndim else scale
        energy = family.energy(label + offset[..., None], scale) - highest
        mass = (-energy).exp_() * (length * weights)
        mean = (mass * label).sum((1, 2)) / mass.sum((1, 2))
        stored.copy_((peak[:, 0] + mean).clamp(low, high))
    return means


def central_interval(
    preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Return the central 68.27 % interval of N(p, sigma^2) truncated to the label range.

    Without a range it is p - sigma to p + sigma. Of this posterior ``truncated_normal_mean``, whose
    arguments, types and errors these are, is the mean; a table is within 1e-5 of the range.
    """
    if label_range is None:
        sigma = _scale(noise_sigma, preds)
        ends = (preds.detach() + side * sigma for side in (-1, 1))
        lower, upper = (end.to(compute_dtype(preds)) for end in ends)
        return lower, upper

    def exact(location: Tensor, sigma: Tensor) -> Tensor:
        tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        return torch.stack([_quantile(location, sigma, label_range, tail) for tail in tails])

    lower, upper = on_range(exact, preds, noise_sigma, label_range, INTERVAL_TOLERANCE)
    return lower, upper


def _quantile(
    location: Tensor, sigma: Tensor, label_range: tuple[float, float], probability: float
) -> Tensor:
    """Return y = p + sigma z with Q(z) = Q(a) - q (Q(a) - Q(b)), Q the normal's upper tail."""
    low, high = label_range
    middle, half = (low + high) / 2, (high - low) / 2
    # Locations above the middle are mirrored: a is then the end that is nearer in density.
    mirrored = location > middle
    below = -(location - middle).abs()
    q = torch.full_like(location, probability)
    q = torch.where(mirrored, 1 - q, q)
    a, width = (-half - below) / sigma, 2 * half / sigma
    log_tail = torch.special.log_ndtr(-a)
    log_ratio = torch.special.log_ndtr(-a - width) - log_tail
    log_ratio = torch.where(a > FAR, -width * (a + width / 2), log_ratio)
    share = -torch.expm1(log_ratio)  # 1 - Q(b) / Q(a)
    fall = torch.log1p(-q * share)  # ln Q(z) / Q(a)
    distance = below - sigma * torch.from_numpy(ndtri_exp((log_tail + fall).cpu().numpy())).to(a)
    # Far outside, where a sum loses its digits, the density on the range is exponential.
    distance = torch.where(a > FAR, -half - sigma * fall / a.clamp(min=FAR), distance)
    # On ranges far narrower than sigma it is flat.
    distance = torch.where(share < 1e-8, -half + 2 * half * q, distance).clamp(-half, half)
    return middle + torch.where(mirrored, -distance, distance)
