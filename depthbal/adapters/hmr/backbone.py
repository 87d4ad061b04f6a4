"""The network in front of SPIN's regressor: torchvision's ResNet-50 without its classifier."""

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

FEATURES = 2048
"""Width of the backbone's output."""


class ResNet50Features(ResNet):  # type: ignore[misc]
    """Turns images (B, 3, 224, 224), normalised as ImageNet's, into features (B, 2048).

    Its 318 parameters and statistics carry the names and shapes of SPIN's backbone, which is
    torchvision's ResNet-50 without `fc`.
    """

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        self.fc = nn.Identity()
        self.frozen = False

    def train(self, mode: bool = True) -> "ResNet50Features":
        """Set the mode, except that a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


def freeze(backbone: ResNet50Features) -> ResNet50Features:
    """Keep parameters and batch-norm statistics as they are, whatever `train()` is called later.

    Example:
        >>> backbone = freeze(ResNet50Features()).train()
        >>> backbone.bn1.training, backbone.conv1.weight.requires_grad
        (False, False)
    """
    backbone.frozen = True
    backbone.requires_grad_(False)
    return backbone.eval()  # type: ignore[no-any-return]
