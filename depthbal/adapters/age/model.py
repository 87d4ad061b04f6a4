"""An image backbone of timm or torchvision with a linear head of one output."""

from typing import Any, Literal

import timm
import torchvision
from torch import Tensor, nn

from depthbal.errors import ConfigError
from depthbal.models.downloads import (
    downloading,
    timm_source,
    torchvision_state_dict,
    unknown_name,
)
from depthbal.models.registry import register_model
from depthbal.models.weights import is_weight_file, load_encoder_file

Library = Literal["timm", "torchvision"]


@register_model
class AgeRegressor(nn.Module):
    """Predict one number per image: a backbone's pooled features times a linear head.

    `head` is the only part that regressor re-training touches; `features` gives what it reads.

    Args:
        backbone: a classification network of `library`, such as ``"resnet50"``.
        weights: of the backbone: None (random), a name that the library knows for it (or
            ``"imagenet"`` for the library's default), or the path of a state dict (.pth, .pt,
            .safetensors) of the whole classifier or the backbone alone.
        library: ``"torchvision"`` or ``"timm"``.

    Shape:
        normalised images (B, 3, H, W) -> labels (B,); `features` -> (B, D)

    Raises:
        ConfigError: an unknown backbone or weights name, a backbone without a linear classifier,
            no such file, or no way to download.
        CheckpointError: the file's parameters are not the backbone's.

    Example:
        >>> import torch
        >>> model = AgeRegressor("test_resnet", library="timm").eval()
        >>> images = torch.zeros(2, 3, 48, 48)
        >>> model(images).shape, model.features(images).shape
        (torch.Size([2]), torch.Size([2, 96]))
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | None = None,
        library: Library = "torchvision",
    ) -> None:
        super().__init__()
        self.init_args: dict[str, Any] = {
            "backbone": backbone,
            "weights": weights,
            "library": library,
        }
        build = timm_backbone if library == "timm" else torchvision_backbone
        self.backbone, width = build(backbone, weights)
        if weights is not None and is_weight_file(weights):
            load_encoder_file(self.backbone, weights)
        self.head = nn.Linear(width, 1)

    def initialise_bias(self, mean: float) -> None:
        """Let the untrained network predict about `mean`."""
        nn.init.constant_(self.head.bias, mean)

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features (B, D) of normalised images (B, 3, H, W)."""
        pooled: Tensor = self.backbone(images)
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Return labels (B,) for normalised images (B, 3, H, W)."""
        label: Tensor = self.head(self.features(images))
        return label.squeeze(-1)


def timm_backbone(name: str, weights: str | None = None) -> tuple[nn.Module, int]:
    """Return a backbone of timm without its classifier, and its number of features.

    Args:
        name: as in ``timm.list_models()``.
        weights: ``"imagenet"`` or the tag of the weights published for it; others are left to the
            caller.
    """
    if not timm.is_model(name.split(".")[0]):
        raise unknown_name("backbone of timm", name, timm.list_models())
    if weights is None or is_weight_file(weights):
        network: Any = timm.create_model(name, num_classes=0)
    else:
        url, cached = timm_source(name, weights)
        with downloading(weights, url, cached):
            network = timm.create_model(name, num_classes=0, pretrained=True)
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


def torchvision_backbone(name: str, weights: str | None = None) -> tuple[nn.Module, int]:
    """Return a backbone of torchvision without its last layer, and its number of features.

    Args:
        name: as in ``torchvision.models.list_models(torchvision.models)``.
        weights: ``"imagenet"`` or one of the names torchvision has for it; others are left to the
            caller.
    """
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise unknown_name("backbone of torchvision", name, known)
    network = torchvision.models.get_model(name, weights=None)
    if hasattr(network, "aux_logits"):
        raise ConfigError(f"{name} has auxiliary outputs; take timm's, or another backbone")
    linear = [(path, part) for path, part in network.named_modules() if type(part) is nn.Linear]
    if not linear or linear[-1][1].out_features != 1000:
        raise ConfigError(f"{name} does not end in a linear layer; take library: timm, or another")
    path, classifier = linear[-1]
    if weights is not None and not is_weight_file(weights):
        published = torchvision.models.get_model_weights(name)
        choice = published["DEFAULT"].name if weights == "imagenet" else weights
        network.load_state_dict(torchvision_state_dict(published, choice))
    network.set_submodule(path, nn.Identity())
    return network, classifier.in_features
