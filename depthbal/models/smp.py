"""Any network of segmentation-models-pytorch as a depth regressor."""

import inspect
import math
import re
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional as F

from depthbal.errors import ConfigError
from depthbal.models.heads import Head
from depthbal.models.weights import (
    downloading,
    is_weight_file,
    load_encoder_file,
    timm_name,
    unknown_name,
)


class SmpDepth(nn.Module):
    """A segmentation-models-pytorch network of metres, by one linear output channel or a `Head`.

    Any input size works: where the architecture needs a multiple of its stride, the input is
    extended at its lower right by repeating the border, and the output is cropped again. A size
    other than `output_scale` times the input's is resized bilinearly (align_corners=False). The
    stages of a `"unet"` decoder that would only be shrunk again are not built: at
    `output_scale=0.5` its last one, the most expensive of all, is left out.

    `"dpt"` takes any size with timm's plain vision transformers (ViT, DINOv2, DINOv3), also those
    of a fixed size. Its decoder wants patches of a power of two: those of 14 pixels (DINOv2) become
    16, and timm resamples the weights as it loads them.

    Args:
        arch: one of smp's architectures: `"unet"`, `"fpn"`, `"deeplabv3plus"`, ...
        encoder: one of smp's encoders, or `"tu-NAME"` for one of timm's.
        weights: of the encoder: None (random), a name smp knows for it (such as `"imagenet"`; for
            `tu-` encoders that is timm's default, and any of its tags), or the path of a state
            dict (.pth, .pt, .safetensors) as torchvision or smp save it.
        output_scale: output size over input size, in (0, 1].
        arch_args: further arguments of the smp architecture, such as `decoder_channels`.
        head: arguments of `Head`, such as {"kind": "log"}; None is linear.

    Shape:
        normalised images (B, 3, H, W) -> metres (B, 1, ceil(output_scale H), ceil(output_scale W)),
        of a head of bins logits (B, bins, ...)

    Raises:
        ConfigError: unknown architecture, encoder, weights or argument, or no way to download.
        CheckpointError: the weight file's parameters are not the encoder's.

    Example:
        >>> import torch
        >>> from depthbal.models import SmpDepth
        >>> model = SmpDepth("unet", "mobilenet_v2").eval()
        >>> with torch.inference_mode():
        ...     model(torch.zeros(1, 3, 35, 50)).shape
        torch.Size([1, 1, 18, 25])
    """

    encoder_name = "network.encoder"

    def __init__(
        self,
        arch: str = "unet",
        encoder: str = "mobilenet_v2",
        weights: str | None = None,
        output_scale: float = 0.5,
        arch_args: dict[str, Any] | None = None,
        head: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < output_scale <= 1:
            raise ConfigError(f"output_scale must be in (0, 1], got {output_scale}")
        self.init_args: dict[str, Any] = {
            "arch": arch,
            "encoder": encoder,
            "weights": weights,
            "output_scale": output_scale,
            "arch_args": arch_args,
            "head": head,
        }
        self.output_scale, self.output_head = output_scale, Head(**head or {})
        channels = self.output_head.channels
        self.network: Any = build_network(arch, encoder, weights, arch_args or {}, channels)
        if isinstance(self.network, smp.Unet):
            _drop_last_stages(self.network, halvings=math.floor(-math.log2(output_scale)))

    def initialise_bias(self, start: float | Tensor) -> None:
        """Let the untrained network predict about `start` metres, or these logits (bins,)."""
        layers = self.network.segmentation_head.modules()
        last = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1]
        self.output_head.initialise(last.bias, start)

    def forward(self, images: Tensor) -> Tensor:
        """Return metres (B, 1, h, w), or logits, for normalised images (B, 3, H, W)."""
        height, width = images.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            images = F.pad(images, (0, right, 0, below), mode="replicate")
        depth: Tensor = self.output_head(self.network(images))
        size = [math.ceil(self.output_scale * side) for side in images.shape[-2:]]
        if list(depth.shape[-2:]) != size:
            depth = F.interpolate(depth, size=size, mode="bilinear", align_corners=False)
        rows, columns = (math.ceil(self.output_scale * side) for side in (height, width))
        return depth[..., :rows, :columns]

    @property
    def multiple(self) -> int:
        """Pixels of which the network's own input sides are multiples."""
        if not getattr(self.network, "requires_divisible_input_shape", True):
            return 1
        stride = int(self.network.encoder.output_stride)
        # smp's DPT halves the patch grid once more and cannot join it again when that is odd
        return 2 * stride if isinstance(self.network, smp.DPT) else stride


def build_network(
    arch: str, encoder: str, weights: str | None, arch_args: dict[str, Any], channels: int = 1
) -> Any:
    """Return smp's network with its output channels and the encoder's weights."""
    architectures = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if arch.lower() not in architectures:
        raise unknown_name("architecture", arch, architectures)
    of_timm = encoder.startswith("tu-")
    if of_timm and not timm.is_model(encoder.removeprefix("tu-").split(".")[0]):
        raise unknown_name("encoder", encoder, [f"tu-{name}" for name in timm.list_models()])
    if not of_timm and encoder not in smp.encoders.encoders:
        raise unknown_name("encoder", encoder, smp.encoders.get_encoder_names())
    known = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[arch.lower()]).parameters
    for name in arch_args:
        # for one of timm's encoders what the architecture does not know goes to timm, else nowhere
        if name not in known and not of_timm:
            raise unknown_name(f"argument of {arch}", name, sorted({*known} - {"kwargs"}))
    if arch.lower() == "dpt" and of_timm:
        arch_args = {**_any_size(encoder.removeprefix("tu-")), **arch_args}
    if weights is not None and is_weight_file(weights) and "patch_size" in arch_args:
        given = {**arch_args, "pretrained_cfg_overlay": {"file": weights}}
        return _create(arch, encoder, True, given, channels)  # by timm, which resamples the patches
    if weights is None or is_weight_file(weights):
        network = _create(arch, encoder, None, arch_args, channels)
        if weights is not None:
            load_encoder_file(network.encoder, weights)
        return network
    with downloading(weights):
        if of_timm:  # smp then expects a switch, the name says which weights
            return _create(arch, timm_name(encoder, weights), True, arch_args, channels)
        return _create(arch, encoder, weights, arch_args, channels)


def _any_size(name: str) -> dict[str, Any]:
    """Return the arguments with which one of timm's vision transformers suits smp's DPT."""
    name, family = name.split(".")[0], ("vision_transformer", "deit", "eva")
    if not timm.models.model_entrypoint(name).__module__.endswith(family):
        return {}
    patch = re.search(r"patch(\d+)", name)
    odd = patch is not None and int(patch[1]).bit_count() > 1
    return {"dynamic_img_size": True} | ({"patch_size": 16} if odd else {})


def _create(
    arch: str, encoder: str, weights: str | bool | None, arch_args: dict[str, Any], channels: int
) -> Any:
    """Call smp, whose complaints about arguments come in several types."""
    given: dict[str, Any] = {"encoder_name": encoder, "encoder_weights": weights}
    try:
        return smp.create_model(arch, **given, in_channels=3, classes=channels, **arch_args)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"smp cannot build {arch!r} with encoder {encoder!r} and arguments {arch_args}: {error}"
        ) from error


def _drop_last_stages(network: Any, halvings: int) -> None:
    """Take the last `halvings` stages off a U-Net decoder and fit a new head on what is left."""
    blocks = network.decoder.blocks
    halvings = min(halvings, len(blocks) - 1)
    if halvings < 1:
        return
    del blocks[-halvings:]
    channels = blocks[-1].conv2[0].out_channels
    classes = network.segmentation_head[0].out_channels
    network.segmentation_head = smp.base.SegmentationHead(channels, classes, kernel_size=3)
    smp.base.initialization.initialize_head(network.segmentation_head)
