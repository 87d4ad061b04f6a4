"""The network of the published NYUD2-DIR results: ResNet-50 with multi-scale feature fusion."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.models.resnet import Bottleneck, ResNet

from depthbal.errors import CheckpointError
from depthbal.models.folding import Form, enlarged_convs
from depthbal.models.heads import Head
from depthbal.models.weights import (
    first_few,
    is_weight_file,
    load_encoder_file,
    load_exactly,
    read_weight_file,
    torchvision_weights,
)

logger = logging.getLogger(__name__)

PUBLISHED_SUFFIX = ".pth.tar"
Features = tuple[Tensor, Tensor, Tensor, Tensor]


class ResNetEncoder(ResNet):  # type: ignore[misc]
    """torchvision's ResNet-50 without pooling and classifier; returns the four stages' outputs."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        del self.avgpool, self.fc

    def forward(self, images: Tensor) -> Features:
        """Return the features of layer1 to layer4: 256, 512, 1024, 2048 channels."""
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)


class UpProjection(nn.Module):
    """Upsample bilinearly and project: `relu(bn1_2(conv1_2(relu(bn1(conv1(u))))) + bn2(conv2(u)))`.

    `u` is the input at the wanted size (bilinear, align_corners=False). The 5x5 convolutions of it
    are computed without it where that costs less, unless `folded` is False (see `enlarged_convs`).

    Source: Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks",
    3DV 2016; in this form in Hu et al., WACV 2019.
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

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the projection (B, out_channels, H, W) of (B, in_channels, h, w), size (H, W)."""
        weights = (self.conv1.weight, self.conv2.weight)
        form: Form | None = None if self.folded else "plain"
        first, second = enlarged_convs(features, weights, size, form)
        projected = self.bn1_2(self.conv1_2(torch.relu(self.bn1(first))))
        return torch.relu(projected + self.bn2(second))


class UpProjectionDecoder(nn.Module):
    """Four up-projections from the deepest features to twice the size of the shallowest."""

    def __init__(self, folded: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2048, 1024, 1, bias=False)
        self.bn = nn.BatchNorm2d(1024)
        self.up1 = UpProjection(1024, 512, folded)
        self.up2 = UpProjection(512, 256, folded)
        self.up3 = UpProjection(256, 128, folded)
        self.up4 = UpProjection(128, 64, folded)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Return 64 channels at `size`."""
        first, second, third, fourth = features
        decoded = torch.relu(self.bn(self.conv(fourth)))
        decoded = self.up1(decoded, third.shape[-2:])
        decoded = self.up2(decoded, second.shape[-2:])
        decoded = self.up3(decoded, first.shape[-2:])
        return self.up4(decoded, size)  # type: ignore[no-any-return]


class FeatureFusion(nn.Module):
    """Every encoder stage brought to one size with 16 channels each, joined and mixed (MFF)."""

    def __init__(self, folded: bool = True) -> None:
        super().__init__()
        self.up1 = UpProjection(256, 16, folded)
        self.up2 = UpProjection(512, 16, folded)
        self.up3 = UpProjection(1024, 16, folded)
        self.up4 = UpProjection(2048, 16, folded)
        self.conv = nn.Conv2d(64, 64, 5, padding=2, bias=False)
        self.bn = nn.BatchNorm2d(64)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Return 64 channels at `size`."""
        branches = (self.up1, self.up2, self.up3, self.up4)
        fused = [branch(stage, size) for branch, stage in zip(branches, features, strict=True)]
        return torch.relu(self.bn(self.conv(torch.cat(fused, dim=1))))


class Refinement(nn.Module):
    """Three 5x5 convolutions from the joined features to one channel of metres, or more (R)."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(128, 128, 5, padding=2, bias=False)
        self.bn0 = nn.BatchNorm2d(128)
        self.conv1 = nn.Conv2d(128, 128, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, channels, 5, padding=2)

    def forward(self, features: Tensor) -> Tensor:
        """Return metres (B, 1, h, w); linear, so that it may leave the label range."""
        features = torch.relu(self.bn0(self.conv0(features)))
        features = torch.relu(self.bn1(self.conv1(features)))
        return self.conv2(features)  # type: ignore[no-any-return]


class ResNetMFF(nn.Module):
    """ResNet-50 with an up-projection decoder and multi-scale fusion, 67,569,473 parameters.

    Any input size works. The output is twice the size of `layer1`'s features, which is half the
    input's (rounded up to a multiple of 4 first): (228, 304) -> (114, 152). Parameters carry the
    names of the published checkpoints (`E.`, `D.`, `MFF.`, `R.`). New layers start from PyTorch's
    default initialisation, as in the published code.

    Source: Hu, Ozay, Zhang, Okatani, "Revisiting Single Image Depth Estimation", WACV 2019; used
    for NYUD2-DIR by Yang et al., ICML 2021, and Ren et al., CVPR 2022.

    Args:
        weights: of the encoder: None (random), a name torchvision knows for ResNet-50
            (`"IMAGENET1K_V1"`, `"IMAGENET1K_V2"`, or `"imagenet"` for the first, as published), or
            the path of a state dict (.pth, .pt, .safetensors); of the whole network: the path of a
            published checkpoint (.pth.tar), from which training then goes on.
        folded: False enlarges the maps before every convolution as the published code does: the
            same function, several times slower; for comparisons.
        head: arguments of `Head`, such as {"kind": "log"}; None is linear, as published.

    Shape:
        normalised images (B, 3, H, W) -> metres (B, 1, h, w), or logits (B, bins, h, w)

    Raises:
        ConfigError: unknown weights name, no such file, or no way to download.
        CheckpointError: the file's parameters are not those of a ResNet-50, or of this network.

    Example:
        >>> import torch
        >>> from depthbal.models import ResNetMFF
        >>> model = ResNetMFF().eval()
        >>> with torch.inference_mode():
        ...     model(torch.zeros(1, 3, 33, 50)).shape
        torch.Size([1, 1, 18, 26])
    """

    encoder_name = "E"

    def __init__(
        self,
        weights: str | None = None,
        folded: bool = True,
        head: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.init_args: dict[str, Any] = {"weights": weights, "folded": folded, "head": head}
        self.E = ResNetEncoder()
        self.D = UpProjectionDecoder(folded)
        self.MFF = FeatureFusion(folded)
        self.output_head = Head(**head or {})
        self.R = Refinement(self.output_head.channels)
        self._trained = weights is not None and weights.lower().endswith(PUBLISHED_SUFFIX)
        if weights is None:
            return
        if self._trained:
            self.load_published(weights, read_official_checkpoint(weights))
        elif is_weight_file(weights):
            load_encoder_file(self.E, weights)
        else:
            name = "IMAGENET1K_V1" if weights == "imagenet" else weights
            state = torchvision_weights(ResNet50_Weights, name)
            self.E.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})

    def load_published(self, path: str | Path, content: dict[str, Any]) -> None:
        """Take the weights of a published checkpoint, as `read_official_checkpoint` returns it."""
        what = f"{path} into the published ResNet-50 network (ResNetMFF)"
        load_exactly(self, content["state_dict"], what)

    def initialise_bias(self, start: float | Tensor) -> None:
        """Let an untrained network predict about `start`; a trained one stays as it is."""
        if not self._trained:
            self.output_head.initialise(self.R.conv2.bias, start)

    def forward(self, images: Tensor) -> Tensor:
        """Return metres (B, 1, h, w), or logits, for normalised images (B, 3, H, W)."""
        features = self.E(images)
        height, width = features[0].shape[-2:]
        size = (2 * height, 2 * width)
        decoded = self.D(features, size)
        fused = self.MFF(features, size)
        return self.output_head(self.R(torch.cat((decoded, fused), dim=1)))  # type: ignore[no-any-return]


def read_official_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a published checkpoint holds, the weights in "state_dict" by our names."""
    content = read_weight_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise CheckpointError(
            f"{path} is no published checkpoint: expected a dictionary with the weights under "
            "'state_dict'"
        )
    if "depthbal" in content:
        raise CheckpointError(
            f"{path} was written by depthbal itself; open it with depthbal.load_predictor"
        )
    state = {str(k).removeprefix("module."): value for k, value in content["state_dict"].items()}
    left_out = [name for name in state if name.startswith("R.FDS.")]
    if left_out:
        logger.info("%s: left out, for training only: %s", path, first_few(left_out))
    state = {name: value for name, value in state.items() if name not in left_out}
    broken = [k for k, v in state.items() if not (isinstance(v, Tensor) and v.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{path} holds no finite weights under {first_few(broken)}: its training has diverged, "
            "or the file is damaged"
        )
    return {**content, "state_dict": state}


def load_official_checkpoint(path: str | Path) -> ResNetMFF:
    """Return the network of a published NYUD2-DIR checkpoint (.pth.tar), in evaluation mode.

    Every weight is accounted for. Names may carry DataParallel's `module.`; the `R.FDS.` buffers
    of models trained with feature distribution smoothing are left out. No code is run from it.

    Source: checkpoints of Yang et al., ICML 2021, and Ren et al., CVPR 2022.

    Shape:
        of the network: (B, 3, 228, 304), normalised -> metres (B, 1, 114, 152), read raw

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is damaged, asks for code, or is another network's (lists what is
            missing, unexpected or of another shape).

    Example:
        >>> import tempfile, torch
        >>> from depthbal.models import ResNetMFF, load_official_checkpoint
        >>> file = tempfile.NamedTemporaryFile(suffix=".pth.tar")
        >>> torch.save({"epoch": 9, "state_dict": ResNetMFF().state_dict()}, file.name)
        >>> load_official_checkpoint(file.name).training
        False
    """
    model = ResNetMFF()
    model.load_published(path, read_official_checkpoint(path))
    return model.eval()
