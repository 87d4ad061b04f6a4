"""The noise scale sigma of Balanced MSE: fixed, or learned on a log scale within bounds."""

import math
from typing import Any

import torch
from torch import Tensor, nn

SIGMA_BOUNDS = (1e-3, 1e3)


class _FullPrecision(nn.Module):
    """A module that moves between devices but is never rounded to half precision."""

    def _apply(self, fn: Any, recurse: bool = True) -> "_FullPrecision":
        def widened(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            narrow = moved.is_floating_point() and moved.element_size() < 4
            return tensor.to(moved.device) if narrow else moved

        super()._apply(widened, recurse)  # type: ignore[no-untyped-call]
        return self


class FixedNoise(_FullPrecision):
    """A constant noise scale, saved with the loss.

    Args:
        noise_sigma: Sigma > 0 in label units.

    Example:
        >>> FixedNoise(0.5)().item()
        0.5
    """

    noise_sigma: Tensor

    def __init__(self, noise_sigma: float = 1.0) -> None:
        super().__init__()
        require_positive(noise_sigma)
        self.register_buffer("noise_sigma", torch.tensor(float(noise_sigma)))

    def forward(self) -> Tensor:
        """Return sigma, shape ()."""
        return self.noise_sigma


class LearnedNoise(_FullPrecision):
    """A noise scale learned with the network, sigma = exp(log_sigma).

    The parameter is projected back into the bounds before each use, instead of being clamped in
    the graph, so that the gradient can always lead away from a bound.

    Args:
        noise_sigma: Initial sigma in label units.
        bounds: Smallest and largest sigma in label units.

    Raises:
        ValueError: An initial sigma outside the bounds.

    Example:
        >>> LearnedNoise(2.0)().item()
        2.0
    """

    def __init__(
        self, noise_sigma: float = 1.0, bounds: tuple[float, float] = SIGMA_BOUNDS
    ) -> None:
        super().__init__()
        require_positive(noise_sigma)
        if not 0 < bounds[0] <= noise_sigma <= bounds[1]:
            raise ValueError(f"expected a noise_sigma within {bounds}, got {noise_sigma}")
        self.log_bounds = (math.log(bounds[0]), math.log(bounds[1]))
        self.log_sigma = nn.Parameter(torch.tensor(math.log(noise_sigma)))

    def forward(self) -> Tensor:
        """Return sigma, shape (), with a gradient to ``log_sigma``."""
        with torch.no_grad():
            self.log_sigma.clamp_(*self.log_bounds)
        return self.log_sigma.exp()


def require_positive(noise_sigma: float) -> None:
    """Raise a ValueError unless sigma is a positive, finite number."""
    if not (math.isfinite(noise_sigma) and noise_sigma > 0):
        raise ValueError(f"expected a positive noise_sigma in label units, got {noise_sigma}")
