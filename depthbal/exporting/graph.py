"""What is exported: from the pixels of an image to metres, without Python between them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthbal.errors import ConfigError
from depthbal.exporting.readout_table import ReadoutTable
from depthbal.predictor import Predictor


class DepthGraph(nn.Module):
    """Normalisation, network, enlargement and read-out as one module of plain operations.

    Args:
        predictor: The trained network with its read-out, on the CPU.
        size: (height, width) of the images in pixels; the depth maps have the same.

    Raises:
        ConfigError: A read-out on the label range of a predictor that knows none, or one too steep
            for a table.

    Example:
        >>> spec = {"short_side": None, "mean": [0.0] * 3, "std": [1.0] * 3}
        >>> network = nn.Conv2d(3, 1, kernel_size=1, bias=False)
        >>> _ = nn.init.constant_(network.weight, 1.0)
        >>> graph = DepthGraph(Predictor(network, None, spec, "raw"), (2, 3))
        >>> graph(torch.full((1, 2, 3, 3), 255, dtype=torch.uint8)).detach()
        tensor([[[3., 3., 3.],
                 [3., 3., 3.]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = predictor.model
        self.size = size
        self.register_buffer("mean", predictor.mean.clone())
        self.register_buffer("std", predictor.std.clone())
        self.readout = _readout(predictor)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return depth (B, height, width) in metres of uint8 RGB images (B, height, width, 3)."""
        pixels = image.permute(0, 3, 1, 2).float() / 255
        raw = self.network((pixels - self.mean) / self.std).float()
        if tuple(raw.shape[-2:]) != self.size:
            raw = F.interpolate(raw, size=self.size, mode="bilinear", align_corners=True)
        depth: Tensor = self.readout(raw)
        return depth.squeeze(1)


class Clamp(nn.Module):
    """The label range as a read-out.

    Args:
        label_range: Ends (lo, hi) in label units.
    """

    def __init__(self, label_range: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = label_range

    def forward(self, preds: Tensor) -> Tensor:
        """Return predictions cut to the range."""
        return preds.clamp(self.low, self.high)


def _readout(predictor: Predictor) -> nn.Module:
    """Return the predictor's own read-out in plain operations."""

    def function(preds: Tensor) -> Tensor:
        return predictor.read_out(preds, (predictor.readout,))[predictor.readout]

    low, high = predictor.label_range or (0.0, 1.0)
    around = torch.linspace(2 * low - high, 2 * high - low, 301)
    with torch.no_grad():
        found = function(around)
        if torch.equal(found, around):
            return nn.Identity()
        if predictor.label_range is None:
            raise ConfigError(
                f"the read-out {predictor.readout!r} needs a label range, and the run has none; "
                "export with --readout raw"
            )
        if torch.equal(found, around.clamp(low, high)):
            return Clamp((low, high))
        return ReadoutTable(function, (low, high))
