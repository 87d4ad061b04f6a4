"""The read-out of Huber noise: its mean on the label range, from the core and the two tails."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.losses.kernel.evidence import compute_dtype

# Labels read out at once.
READOUT_CHUNK = 2**16
# In sigma: a core narrower than this, or one that begins farther out, is an exponential to 1e-8 of
# its own extent, better than what is left of the digits of its closed form.
NARROW = 1e-5
FAR = 1e4


class Piece(NamedTuple):
    """A part of the density: its mass and its mean, in units of sigma from the location."""

    mass: Tensor
    mean: Tensor


def truncated_huber_mean(
    preds: Tensor, noise_sigma: Tensor | float, delta: float, label_range: tuple[float, float]
) -> Tensor:
    """Return the mean of the density exp(-h(y - p) / sigma^2) truncated to the range, elementwise.

    h is Huber's, r^2 / 2 for |r| <= delta and delta (|r| - delta / 2) beyond, so that the range is
    cut into at most three pieces: the core, a truncated normal, and two tails, truncated
    exponentials. The mean is that of the pieces' means, weighted by their masses, in closed form.
    It grows with p; for p farther than delta outside the range only a tail is left, and the mean
    stays what it is at distance delta.

    Args:
        preds: Locations p of any shape, label units.
        noise_sigma: Scale sigma > 0 in label units, one element or the shape of ``preds``.
        delta: Residual > 0 at which the tails begin, label units.
        label_range: Ends (lo, hi) of the label range in label units.

    Returns:
        Labels in (lo, hi), of the shape of ``preds``, in float32 or float64. Computed in float64,
        without a gradient: it is a prediction and not part of the loss.

    Raises:
        ValueError: A range that is not increasing, or a delta that is not positive.

    Source: direct integration. It is the balanced posterior mean under Huber noise, as the
    truncated-normal mean is under the Gaussian noise of Balanced MSE, and not in the paper.

    Example:
        >>> preds = torch.tensor([0.0, 5.0, 99.0])
        >>> truncated_huber_mean(preds, 1.0, 100.0, (0.0, 10.0))  # as good as Gaussian
        tensor([0.7979, 5.0000, 9.9888])
        >>> truncated_huber_mean(preds, 1.0, 1.0, (0.0, 10.0))  # of 99 the tail is left
        tensor([1.0982, 5.0000, 9.0005])
    """
    low, high = label_range
    if not low < high:
        raise ValueError(f"expected label_range (lo, hi) with lo < hi, got {label_range}")
    if not delta > 0:
        raise ValueError(f"expected a positive delta in label units, got {delta}")
    location = preds.detach().flatten()
    scale = torch.as_tensor(noise_sigma, dtype=torch.float64, device=preds.device).detach()
    scale = scale.reshape(()) if scale.numel() == 1 else scale.expand(preds.shape).flatten()
    means = torch.empty_like(location, dtype=compute_dtype(preds))
    for start in range(0, location.numel(), READOUT_CHUNK):
        chunk = slice(start, start + READOUT_CHUNK)
        sigma = scale if scale.ndim == 0 else scale[chunk]
        means[chunk] = _mean(location[chunk].double(), sigma, delta, low, high)
    return means.view(preds.shape)


def _mean(location: Tensor, sigma: Tensor, delta: float, low: float, high: float) -> Tensor:
    """Return the mean of flat float64 locations.

    It is odd around the middle of the range: only locations at or below the middle are evaluated.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    below = -(location - middle).abs().clamp(max=half + delta)
    near, far = (-half - below) / sigma, (half - below) / sigma
    edge = (delta / sigma).expand_as(near)
    left = _tail(edge, -near - edge, torch.exp(-0.5 * edge**2))
    core = _core(torch.maximum(near, -edge), torch.minimum(far, edge))
    # All masses are relative to the density at its largest in the range.
    top = near.clamp(min=0)
    right = _tail(edge, far - edge, torch.exp(-0.5 * (edge - top) * (edge + top)))
    mass = left.mass + core.mass + right.mass
    moment = right.mass * right.mean + core.mass * core.mean - left.mass * left.mean
    mean = (below + sigma * moment / mass).clamp(-half, half)
    return middle + torch.where(location > middle, -mean, mean)


def _tail(edge: Tensor, length: Tensor, height: Tensor) -> Piece:
    """Return the exponential of rate ``edge`` that starts there and has this length and height."""
    length = length.clamp(min=0)
    exponent = edge * length
    mass = height * length * _exponential_mass(exponent)
    return Piece(mass, edge + length * _exponential_mean(exponent))


def _core(start: Tensor, stop: Tensor) -> Piece:
    """Return the standard normal between two points, ``start`` <= ``stop`` and |start| <= |stop|.

    Its mass is relative to exp(-start^2 / 2) where both points are positive, else to 1.
    """
    width = (stop - start).clamp(min=0)
    outside = start > 0
    begin = start.clamp(min=0)
    fall = 0.5 * width * (start + stop)  # of the logarithm of the density, from start to stop
    root = math.sqrt(0.5)
    scaled = torch.special.erfcx(begin * root)
    scaled = scaled - torch.exp(-fall) * torch.special.erfcx(stop.clamp(min=0) * root)
    plain = torch.erf(stop * root) - torch.erf(start * root)
    mass = math.sqrt(math.pi / 2) * torch.where(outside, scaled, plain)
    height = torch.where(outside, torch.ones_like(start), torch.exp(-0.5 * start**2))
    mean = height * -torch.expm1(-fall) / mass
    # Where this loses its digits, the core is an exponential.
    exponent = torch.where(begin > FAR, begin, (start + stop) / 2) * width
    steep = (width < NARROW) | (begin > FAR)
    mean = torch.where(steep, start + width * _exponential_mean(exponent), mean)
    mass = torch.where(width < NARROW, height * width * _exponential_mass(exponent), mass)
    return Piece(mass, mean)


def _exponential_mass(exponent: Tensor) -> Tensor:
    """Return the integral of exp(-exponent x) over x in [0, 1]."""
    safe = exponent.clamp(min=1e-3)
    series = 1 - exponent / 2 + exponent**2 / 6 - exponent**3 / 24
    return torch.where(exponent < 1e-3, series, -torch.expm1(-safe) / safe)


def _exponential_mean(exponent: Tensor) -> Tensor:
    """Return the mean of the density exp(-exponent x) on [0, 1]."""
    safe = exponent.clamp(min=1e-2)
    series = 0.5 - exponent / 12 + exponent**3 / 720
    return torch.where(exponent < 1e-2, series, 1 / safe - 1 / torch.expm1(safe))
