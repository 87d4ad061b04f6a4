"""SPIN for re-training: a frozen backbone, and a regressor that starts anew or where SPIN ended."""

from torch import Tensor, nn

from depthbal.adapters.hmr.backbone import FEATURES, ResNet50Features, freeze
from depthbal.adapters.hmr.checkpoint import load_spin_checkpoint
from depthbal.adapters.hmr.head import MeanParams, Prediction, SpinHead
from depthbal.errors import ConfigError


class SpinNetwork(nn.Module):
    """Regress bodies from pictures, or from the features of the frozen backbone.

    The published training re-trains the whole regressor from new weights on the backbone of a SPIN
    checkpoint, which stays in evaluation mode with its statistics.

    Args:
        weights: SPIN's model_checkpoint.pt, or a file with the backbone alone; null for features
            that come without a backbone.
        features: Width of these features; with a backbone 2048.
        keep_head: Start from the checkpoint's regressor rather than from new weights.
        dropout: Of the regressor in training.

    Shape:
        images (B, 3, 224, 224) or features (B, F) -> Prediction

    Raises:
        ConfigError: No such checkpoint, or settings that contradict each other.
        CheckpointError: It is not SPIN's, or `keep_head` finds no regressor in it.

    Example:
        >>> import torch
        >>> network = SpinNetwork(features=32).eval()
        >>> network(torch.zeros(2, 32)).rotmats.shape
        torch.Size([2, 24, 3, 3])
    """

    def __init__(
        self,
        weights: str | None = None,
        features: int = FEATURES,
        keep_head: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if weights is None and keep_head:
            raise ConfigError("keep_head needs weights, SPIN's model_checkpoint.pt")
        if weights is not None and features != FEATURES:
            raise ConfigError(f"SPIN's backbone gives {FEATURES} features, got features={features}")
        self.keep_head, self.features = keep_head, features
        self.head = SpinHead(features=features, dropout=dropout)
        self.backbone: ResNet50Features | None = None
        if weights is not None:
            published = self.head if keep_head else SpinHead()
            backbone = ResNet50Features()
            load_spin_checkpoint(weights, backbone, published, require_head=keep_head)
            self.backbone = freeze(backbone)

    def start_from(self, mean: MeanParams) -> None:
        """Set where the regressor's iteration starts; a kept regressor has its own start."""
        if not self.keep_head:
            for name, value in zip(("init_pose", "init_shape", "init_cam"), mean, strict=True):
                getattr(self.head, name).copy_(value[None])

    def forward(self, network_input: Tensor) -> Prediction:
        """Return the prediction for images (B, 3, 224, 224) or features (B, F)."""
        if network_input.ndim == 2:
            return self.head(network_input)  # type: ignore[no-any-return]
        if self.backbone is None:
            raise ConfigError("pictures need weights, SPIN's model_checkpoint.pt")
        return self.head(self.backbone(network_input))  # type: ignore[no-any-return]
