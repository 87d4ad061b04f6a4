"""The up-projection block: upsample, then a two-branch residual of 5x5 convolutions."""

import torch
from torch import Tensor, nn

from depthbal.models.folding import Form, InterpolationMatrices, enlarged_convs


class UpProjection(nn.Module):
    """Upsample bilinearly and project: `relu(bn1_2(conv1_2(relu(bn1(conv1(u))))) + bn2(conv2(u)))`.

    `u` is the input at the wanted size (bilinear, align_corners=False); `conv1` and `conv2` are
    5x5, `conv1_2` is 3x3, none has a bias. Parameter names are those of the published network.
    The 5x5 convolutions of `u` are computed without `u` where that costs less (see
    `folding.enlarged_convs`); values and gradients are the same but for rounding.

    Source: Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks",
    3DV 2016; in this form in Hu et al., WACV 2019.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        folded: False enlarges first wherever, as the published code does.

    Shape:
        (B, in_channels, h, w) and a size (H, W) -> (B, out_channels, H, W)

    Example:
        >>> import torch
        >>> from depthbal.models.up_projection import UpProjection
        >>> UpProjection(8, 4)(torch.zeros(2, 8, 3, 5), (6, 9)).shape
        torch.Size([2, 4, 6, 9])
    """

    def __init__(self, in_channels: int, out_channels: int, folded: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv1_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn1_2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.folded = folded
        self._matrices = InterpolationMatrices(taps=5)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the projection of `features` at `size` = (height, width)."""
        weights = (self.conv1.weight, self.conv2.weight)
        form: Form | None = None if self.folded else "plain"
        first, second = enlarged_convs(features, weights, size, self._matrices, form)
        projected = self.bn1_2(self.conv1_2(torch.relu(self.bn1(first))))
        return torch.relu(projected + self.bn2(second))
