"""One label per image: a backbone of timm or torchvision with a linear head, and its task."""

from contextlib import nullcontext
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import Tensor, nn

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS
from depthbal.models import weights as published
from depthbal.training.task import Task


class AgeRegressor(nn.Module):
    """Predict labels (B,) of normalised images (B, 3, H, W): `head` of the features of `backbone`.

    Args:
        backbone: a classification network of `library`, such as ``"resnet50"``.
        weights: of the backbone: None (random), a name that the library knows for it (or
            ``"imagenet"`` for the library's default), or the path of a state dict (.pth, .pt,
            .safetensors) of the whole classifier or the backbone alone.
        library: ``"torchvision"`` or ``"timm"``.

    Raises:
        ConfigError, CheckpointError: no such backbone, weights or file, none that fit, no linear
            classifier, or no way to download.

    Example:
        >>> AgeRegressor("test_resnet", library="timm").eval()(torch.zeros(2, 3, 48, 48)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | None = None,
        library: Literal["torchvision", "timm"] = "torchvision",
    ) -> None:
        super().__init__()
        self.init_args = {"backbone": backbone, "weights": weights, "library": library}
        file = weights if weights is not None and published.is_weight_file(weights) else None
        build = _timm if library == "timm" else _torchvision
        self.backbone, width = build(backbone, None if file else weights)
        if file is not None:
            published.load_encoder_file(self.backbone, file)
        self.head = LabelHead(width, 1)

    def initialise_bias(self, mean: float) -> None:
        """Let the untrained network predict about `mean`."""
        nn.init.constant_(self.head.bias, mean)

    def forward(self, images: Tensor) -> Tensor:
        """Return the labels."""
        return self.head(self.backbone(images))  # type: ignore[no-any-return]


class LabelHead(nn.Linear):
    """Labels (B,) of features (B, D), in float32: those near 100 lie 0.5 apart in bfloat16."""

    def forward(self, features: Tensor) -> Tensor:
        """Return labels (B,) whatever the precision of the features."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float()).squeeze(-1)


class AgeTask(Task):
    """Train a network on one label per image, or its head alone (RRT, by `Task`'s settings).

    The best epoch has the lowest bMAE on the validation split; a training reports its last one,
    published rows the best.

    Source: Ren et al., CVPR 2022 (supplement 2.2); RRT: Yang et al., ICML 2021.

    Example:
        >>> from depthbal.adapters.age import AgeRegressor
        >>> from depthbal.losses import L1Loss
        >>> network = AgeRegressor("test_resnet", library="timm")
        >>> AgeTask(network, L1Loss()).selection_metric
        'val/bmae'
    """

    selection_metric = "val/bmae"
    selection_title = "validation bMAE"
    main_metric = "mae"
    balanced = ("mae", "mse")
    study_metrics = tuple(f"{group}.bmae" for group in GROUPS)


def _timm(name: str, weights: str | None) -> tuple[nn.Module, int]:
    """Return a network without its classifier, and its number of features."""
    if not timm.is_model(name.split(".")[0]):
        raise published.unknown_name("backbone of timm", name, timm.list_models())
    known = published.timm_name(name, weights) if weights else name
    with published.downloading(weights) if weights else nullcontext():
        network: Any = timm.create_model(known, num_classes=0, pretrained=bool(weights))
    return network, getattr(network, "head_hidden_size", None) or network.num_features


def _torchvision(name: str, weights: str | None) -> tuple[nn.Module, int]:
    """Return a network without its last layer, and its number of features."""
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise published.unknown_name("backbone of torchvision", name, known)
    network = torchvision.models.get_model(name, weights=None)
    linear = [path for path, part in network.named_modules() if type(part) is nn.Linear]
    if not linear or hasattr(network, "aux_logits"):
        raise ConfigError(f"{name} does not end in one linear layer; take another, or library timm")
    if weights is not None:
        choices: Any = torchvision.models.get_model_weights(name)
        choice = choices["DEFAULT"].name if weights == "imagenet" else weights
        network.load_state_dict(published.torchvision_weights(choices, choice))
    width: int = network.get_submodule(linear[-1]).in_features
    network.set_submodule(linear[-1], nn.Identity())
    return network, width
