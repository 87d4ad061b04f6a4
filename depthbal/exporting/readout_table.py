"""A read-out as a table, in operations that every runtime has."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from depthbal.errors import ConfigError

NODES = tuple(2**power + 1 for power in range(9, 18))
SHIFT = 1e-4  # label ranges; networks are less exact than that
FAR = 1e4  # label ranges from the centre; a read-out of labels changes no more beyond


class ReadoutTable(nn.Module):
    """An increasing function of one variable, interpolated linearly between nodes.

        u = asinh((p - c) / w),   f(p) ~ linear in u between f at equally spaced u

    The nodes are dense within the label range, of centre c and half width w, and thin out
    exponentially beyond it, where a read-out flattens. They are doubled until the interpolation
    agrees with the function midway between all of them. Where a network is balanced afterwards the
    function is arbitrarily steep near the ends of the labels; there it is enough that the
    interpolation lies between the function a little below and a little above.

    Args:
        function: The read-out, elementwise, on float64 or float32 labels.
        label_range: Ends (lo, hi) between which it matters most, in label units.
        tolerance: Largest difference in label units; where the function is too steep for that, from
            its values at predictions at most the ten-thousandth part of the label range away.

    Raises:
        ConfigError: The function does not increase, or is not finite.

    Example:
        >>> table = ReadoutTable(torch.sigmoid, (-4.0, 4.0))
        >>> p = torch.tensor([-1e9, 0.3, 2.0, 1e9])
        >>> bool(torch.allclose(table(p), torch.sigmoid(p), atol=1e-4))
        True
    """

    values: Tensor

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        label_range: tuple[float, float],
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        low, high = label_range
        self.center, self.half_width = (low + high) / 2, (high - low) / 2
        self.reach = float(torch.asinh(torch.tensor(2 * FAR, dtype=torch.float64)))
        for nodes in NODES:
            values = self._tabulate(function, nodes, 0.0)
            if self.error <= tolerance:
                break
        else:
            values = self._tabulate(function, NODES[-1], SHIFT * (high - low))
        if not self.error <= tolerance or (values.diff() < -tolerance).any():
            raise ConfigError(
                f"the read-out cannot be put into a table: {NODES[-1]} nodes leave a difference of "
                f"{self.error:.2g}, wanted {tolerance:.2g}; export with --readout clamped or raw"
            )
        self.register_buffer("values", values.float())

    def _tabulate(self, function: Callable[[Tensor], Tensor], nodes: int, shift: float) -> Tensor:
        """Return the function at the nodes; ``error`` is then how far the middles are off."""
        values = function(self._places(nodes)).double()
        middle = self._places(2 * nodes - 1)[1::2]
        between = (values[1:] + values[:-1]) / 2
        above = between - function(middle + shift).double()
        below = function(middle - shift).double() - between
        self.error = float(torch.maximum(above, below).clamp(min=0).max())
        return values

    def _places(self, nodes: int) -> Tensor:
        """Return p at equally spaced u, (nodes,) float64."""
        u = torch.linspace(-self.reach, self.reach, nodes, dtype=torch.float64)
        return self.center + self.half_width * torch.sinh(u)

    def forward(self, preds: Tensor) -> Tensor:
        """Return the read-out of predictions of any shape, float32."""
        last = self.values.shape[0] - 1
        u = torch.asinh((preds.float() - self.center) / self.half_width)
        place = ((u + self.reach) * (last / (2 * self.reach))).clamp(0.0, float(last))
        below = place.floor().clamp(max=float(last - 1))
        index = below.long()
        left, right = self.values[index], self.values[index + 1]
        return left + (place - below) * (right - left)
