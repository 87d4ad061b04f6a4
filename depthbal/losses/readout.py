"""The read-out: from the location that Balanced MSE learns to a prediction on the label range."""

import math

import torch
from torch import Tensor

from depthbal.losses.kernel import tabulated

# Distance from the range, in sigma, beyond which the normal tail is an exponential to 1e-8.
FAR = 1e4
# Above this number of float32 locations a table pays on a CPU. It agrees with the formula within
# this share of the label range; float32 itself rounds labels near an end of the range by a tenth.
TABULATE_LOCATIONS = 2**16
TOLERANCE = 5e-7


def truncated_normal_mean(
    preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float]
) -> Tensor:
    """Return the mean of N(p, sigma^2) truncated to the label range, elementwise.

        p + sigma (phi(a) - phi(b)) / (Phi(b) - Phi(a)),  a = (lo - p) / sigma, b = (hi - p) / sigma

    Balanced MSE reads p as the mean label of a world that is uniform on the whole line. Labels
    that live on [lo, hi] make that world uniform on the range, so the posterior there is a
    truncated normal and p is only its location: for a certain label near an end of the range p
    lies outside it. This mean is the balanced prediction; it grows with p and stays in the range.

    Args:
        preds: Locations p of any shape, label units.
        noise_sigma: Sigma > 0 in label units, one element or the shape of ``preds``.
        label_range: Ends (lo, hi) of the label range in label units.

    Returns:
        Labels in (lo, hi), of the shape of ``preds``, in float32 or float64, without a gradient:
        a prediction and not part of the loss. Computed in float64; of many float32 locations on a
        CPU with one sigma by a table that is checked to be within 1e-6 of the label range.

    Raises:
        ValueError: A range that is not increasing.

    Source: the mean of a truncated normal distribution (Johnson, Kotz, Balakrishnan, Continuous
    Univariate Distributions 1, section 10.1), applied to the posterior of the balanced world.

    Example:
        >>> truncated_normal_mean(torch.tensor([0.5, 5.0, 24.8]), 1.0, (0.7, 10.0))
        tensor([1.4294, 5.0000, 9.9330])
    """
    low, high = label_range
    if not low < high:
        raise ValueError(f"expected label_range (lo, hi) with lo < hi, got {label_range}")
    preds = preds.detach()
    sigma = torch.as_tensor(noise_sigma, device=preds.device).detach().double()
    dtype = torch.float64 if preds.dtype == torch.float64 else torch.float32
    many = dtype == torch.float32 and preds.numel() >= TABULATE_LOCATIONS
    if many and sigma.numel() == 1 and preds.device.type == "cpu":
        means = _by_table(preds.to(dtype).flatten(), sigma.reshape(()), low, high)
        if means is not None:
            return means.view(preds.shape)
    return _mean(preds.double(), sigma, low, high).to(dtype)


def _by_table(locations: Tensor, sigma: Tensor, low: float, high: float) -> Tensor | None:
    """Return the means of flat locations by interpolation, or None where no table is exact."""
    scale, width = float(sigma), high - low
    # Where sigma exceeds the range the mean still crosses it, over sigma^2 / width.
    smoothness = scale * max(1.0, scale / width)
    first, last = torch.stack(locations.aminmax()).tolist()
    tolerance = torch.full((1, 1), TOLERANCE * width, dtype=torch.float64)
    table = tabulated.build(
        lambda nodes: _mean(nodes, sigma, low, high)[None],
        first,
        last,
        smoothness,
        locations.numel() // 4,
        tolerance,
    )
    if table is None:
        return None
    (means,) = tabulated.interpolate(table, locations)
    return means.clamp_(low, high)


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
    """Return (Q(near) - Q(far)) * 2 exp(near^2 / 2) for near <= far, without overflow.

    Where the location lies outside the range (near > 0) the scaled complementary error function
    keeps both terms finite; inside, the plain error functions are exact and nothing underflows
    faster than exp(near^2 / 2) grows, because |near| <= far.
    """
    root = math.sqrt(0.5)
    outside = near > 0
    safe = torch.where(outside, near, torch.zeros_like(near))
    scaled = torch.special.erfcx(safe * root) - decay * torch.special.erfcx(far * root)
    inside = torch.where(outside, torch.zeros_like(near), near)
    plain = torch.special.erf(far * root) - torch.special.erf(inside * root)
    return torch.where(outside, scaled, plain * torch.exp(inside**2 / 2))
