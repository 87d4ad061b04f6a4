"""Any depth network of transformers, at home in its own normalisation, sizes and units."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD
from depthbal.errors import CheckpointError, ConfigError
from depthbal.io import write_json
from depthbal.models.weights import first_few

Output = Literal["own", "metric", "new"]

METRIC = ("zoedepth", "glpn", "chmv2", "tipsv2_dpt")
"""Types of networks that give metres whatever else their configuration says."""
NOT_THE_NETWORK = ("_name_or_path", "transformers_version", "architectures", "dtype")
"""Entries of a configuration that change with where it was read from."""
UNUSED = (
    "mask_token",
    "fusion_stage.layers.0.residual_layer1.",
    "intermediate.0.residual_layer1.",
    "dpt.layernorm.",
)
"""Parts of names of parameters that no depth depends on; several processes would wait for them."""
BICUBIC = 3  # of PIL's resampling filters


class HFDepth(nn.Module):
    """A network of transformers' `AutoModelForDepthEstimation`, from normalised images to metres.

    Its image processor says how it wants to see a picture: which mean and standard deviation, which
    size, the aspect kept or not, sides in multiples of its patch. Images of any size, normalised as
    those of ImageNet, are brought into that form, and the depth back to their size (bilinear,
    align_corners=True). ZoeDepth's reflected border is left out. What is not metric is refused
    unless `output` says what to do: relative depth cannot be compared with metres.

    `init_args` holds configuration and processor as plain data, so that a checkpoint is opened
    without the folder or a network. Installed with ``pip install "depthbal[hf]"``.

    Args:
        weights: name on huggingface.co, or folder that `save_pretrained` wrote, with config.json,
            preprocessor_config.json and the parameters; None for random ones, with `config` and
            `processor`.
        output: "own": the configuration says that it gives metres (Depth Anything of type metric,
            ZoeDepth, GLPN, CHMv2, TIPS, DepthPro by its own field of view); "metric": it does
            although the configuration does not say so (DPT trained on metres); "new": a network of
            inverse or relative depth gets a metric head, whose last convolution starts anew.
        max_depth: metres at which its head shall end (whole ones for Depth Anything and GLPN);
            None: those of the configuration, of a new head those of the data. A task whose data
            reach farther moves it there (``set_label_range``). The head's parameters stay.
        size: (height, width) in place of the image processor's: smaller is faster.
        config: configuration of transformers as plain data, in place of that of `weights`.
        processor: the same of the image processor.

    Shape:
        images (B, 3, H, W), normalised with ImageNet's mean and standard deviation -> (B, 1, H, W)

    Raises:
        ConfigError: transformers is not installed, nothing of that name, no metric output, or, on a
            call, images that are too small, or a new head without its end.
        CheckpointError: parameters are missing.

    Example:
        >>> from transformers import GLPNConfig
        >>> sizes = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1] * 4}
        >>> small = GLPNConfig(depths=[1] * 4, decoder_hidden_size=8, **sizes)
        >>> rule = {"do_normalize": False, "size_divisor": 32}
        >>> network = HFDepth(config=small.to_dict(), processor=rule).eval()
        >>> network(torch.zeros(1, 3, 50, 70)).shape, network.max_depth
        (torch.Size([1, 1, 50, 70]), 10)
    """

    output_head = None  # gives metres by itself

    def __init__(
        self,
        weights: str | None = None,
        output: Output = "own",
        max_depth: float | None = None,
        size: tuple[int, int] | None = None,
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if find_spec("transformers") is None:
            raise ConfigError('HFDepth needs transformers: pip install "depthbal[hf]"')
        if weights is None and None in (config, processor):
            raise ConfigError("HFDepth needs weights (a name or folder), or config and processor")
        settings, rule = _read(weights, config, processor)
        content = json.loads(settings.to_json_string(use_diff=False))
        self.init_args: dict[str, Any] = {
            "weights": weights,
            "output": output,
            "max_depth": max_depth,
            "size": size and list(size),
            "config": {key: content[key] for key in content if key not in NOT_THE_NETWORK},
            "processor": dict(rule),
        }
        self.kind, self.output, self.processor = str(settings.model_type), output, rule
        if size is not None:
            rule |= {"size": {"height": size[0], "width": size[1]}, "do_resize": True}
        _require_metres(settings, output, weights or self.kind)
        if output == "new" and self.kind == "depth_anything":
            settings.depth_estimation_type = "metric"
        if max_depth is not None:
            _set_max_depth(settings, max_depth)
        self.network: Any = _load(settings, weights)
        self.max_depth: float | None = getattr(settings, "max_depth", None)
        self._open = output == "new" and self.kind == "depth_anything" and max_depth is None
        self.encoder_name = f"network.{next(iter(self.network.named_children()))[0]}"
        if output == "new":
            nn.init.normal_(self._last_convolution().weight, std=0.02)
        for name, parameter in self.network.named_parameters():
            if any(part in name for part in UNUSED):
                parameter.requires_grad_(False)
        self._multiple = _multiple(settings, rule)
        normalises = rule.get("do_normalize", True)
        mean, std = (rule["image_mean"], rule["image_std"]) if normalises else ([0] * 3, [1] * 3)
        # from ImageNet's normalisation to its own
        self._scale = [a / b for a, b in zip(IMAGENET_STD, std, strict=True)]
        self._shift = [(a - b) / c for a, b, c in zip(IMAGENET_MEAN, mean, std, strict=True)]

    def set_label_range(self, label_range: tuple[float, float]) -> None:
        """Let the head end where the labels do (metres), unless it reaches farther already."""
        if self.max_depth is None or not (self._open or self.max_depth < label_range[1]):
            return
        whole = isinstance(self.max_depth, int)
        self.max_depth = math.ceil(label_range[1]) if whole else label_range[1]
        self._open, self.network.config.max_depth = False, self.max_depth
        for part in self.network.modules():
            if hasattr(part, "max_depth"):
                part.max_depth = self.max_depth
            if hasattr(part, "bin_centers"):
                centers = torch.linspace(part.min_depth, self.max_depth, len(part.bin_centers))
                part.bin_centers.copy_(centers)

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which the network sees an image, by its processor's rule.

        With the aspect kept the scale is that of the side for which it is nearer to 1. Sides are
        rounded to multiples of the patch.
        """
        size, one = self.processor.get("size") or {}, self._multiple
        scales = height_scale, width_scale = (
            (size["height"] / height, size["width"] / width)
            if self.processor.get("do_resize", True) and "height" in size
            else (1.0, 1.0)
        )
        if self.processor.get("keep_aspect_ratio"):
            height_scale = width_scale = min(scales, key=lambda scale: abs(1 - scale))
        sides = round(height_scale * height / one) * one, round(width_scale * width / one) * one
        if 0 in sides:
            raise ConfigError(
                f"images of {height} x {width} are too small for {type(self.network).__name__}, "
                f"whose sides are multiples of {one} pixels; give larger ones"
            )
        return sides

    def forward(self, images: Tensor) -> Tensor:
        """Return metres (B, 1, H, W) of images (B, 3, H, W) normalised as those of ImageNet."""
        if self._open:
            raise ConfigError("a new head needs max_depth, its end in metres, or a task with data")
        given = images.shape[-2:]
        size = self.network_size(*given)
        if size != tuple(given):
            mode = "bicubic" if self.processor.get("resample") == BICUBIC else "bilinear"
            smaller = size[0] < given[0] or size[1] < given[1]
            images = F.interpolate(images, size=size, mode=mode, antialias=smaller)
        if any(abs(number) > 1e-6 for number in self._shift):
            scale, shift = (images.new_tensor(v).view(3, 1, 1) for v in (self._scale, self._shift))
            images = images * scale + shift
        found = self.network(pixel_values=images)
        depth: Tensor = found.predicted_depth
        if self.kind == "depth_pro" and self.output == "own":
            # canonical inverse depth times width over focal length
            angle = torch.deg2rad(found.field_of_view).view(-1, 1, 1) / 2
            depth = 1 / (depth * 2 * torch.tan(angle)).clamp(1e-4, 1e4)
        depth = depth.unsqueeze(1)
        if depth.shape[-2:] != given:
            depth = F.interpolate(depth, size=given, mode="bilinear", align_corners=True)
        return depth

    def initialise_bias(self, depth_m: float) -> None:
        """Let a new head predict about `depth_m` metres; one that was trained stays as it is."""
        if self.output == "new":
            share = depth_m / (self.max_depth or math.inf)  # of a sigmoid, else after a ReLU
            start = math.log(share / (1 - share)) if 0 < share < 1 else depth_m
            nn.init.constant_(self._last_convolution().bias, start)  # type: ignore[arg-type]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what transformers' `from_pretrained` and `AutoImageProcessor` read."""
        state = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        self.network.save_pretrained(folder, state_dict=state)
        write_json(Path(folder) / "preprocessor_config.json", self.processor)

    @property
    def saved_output(self) -> Output:
        """The `output` with which a saved folder is opened again: its new head is its own."""
        if self.output != "new":
            return self.output
        return "own" if self.kind == "depth_anything" else "metric"

    def _last_convolution(self) -> nn.Conv2d:
        return [one for one in self.network.head.modules() if isinstance(one, nn.Conv2d)][-1]


def _read(
    weights: str | None, config: dict[str, Any] | None, processor: dict[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    """Return the configuration as transformers', and the processor's as plain data."""
    from transformers import AutoConfig, AutoImageProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

    place = f"{weights or 'the configuration'} cannot be read"
    try:
        if config is None:
            settings = AutoConfig.from_pretrained(weights)
        else:
            settings = AutoConfig.for_model(**config)
        if processor is None:
            place = f"the preprocessor_config.json of {weights} cannot be read"
            found = AutoImageProcessor.from_pretrained(weights)
            processor = json.loads(found.to_json_string())
    except Exception as error:  # of whichever library
        raise ConfigError(
            f"{place} ({shorten(str(error), 240)}); give a name on huggingface.co (which wants a "
            "network) or a folder that save_pretrained of network and image processor wrote"
        ) from error
    if settings.model_type not in MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES:
        known = ", ".join(MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES)
        raise ConfigError(f"a {settings.model_type} is no network of depth; those are {known}")
    return settings, dict(processor)


def _load(settings: Any, weights: str | None) -> Any:
    """Return the network with its parameters, every one of them accounted for."""
    from transformers import AutoModelForDepthEstimation

    try:
        if weights is None:
            return AutoModelForDepthEstimation.from_config(settings)
        network, report = AutoModelForDepthEstimation.from_pretrained(
            weights, config=settings, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"{weights or 'the configuration'}: {shorten(str(error), 240)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(f"{weights} lacks parameters of the network: {first_few(missing)}")
    return network.train()


def _require_metres(settings: Any, output: Output, what: str) -> None:
    """Refuse an output that is not metric, and a head that would replace a metric one."""
    kind, metric = settings.model_type, settings.model_type in METRIC
    says = f"depth of a unit that the configuration of a {kind} does not say"
    if kind == "prompt_depth_anything":
        raise ConfigError(
            f"{what} wants a depth map as prompt with every image, which is not given"
        )
    if kind == "depth_anything":
        metric = settings.depth_estimation_type == "metric"
        says = "inverse depth up to a scale and shift of every image"
    elif kind == "depth_pro":
        metric, says = settings.use_fov_model, "inverse depth up to the focal length"
    if output == "own" and not metric:
        raise ConfigError(
            f"{what} gives {says}, not metres; output: new gives it a metric head to train"
            + ("" if kind == "depth_anything" else ", output: metric says that it gives metres")
        )
    if output == "new" and metric:
        raise ConfigError(f"{what} gives metres already; leave out output: new")


def _set_max_depth(settings: Any, metres: float) -> None:
    """Set where the depths of a network end, before it is made: heads keep a copy."""
    whole = int(metres) if metres == int(metres) else metres
    if getattr(settings, "bin_configurations", None):
        bins = [{**one, "max_depth": whole} for one in settings.bin_configurations]
        settings.bin_configurations = bins
    elif not hasattr(settings, "max_depth"):
        raise ConfigError(f"the depths of a {settings.model_type} end nowhere: no max_depth")
    elif isinstance(whole, float) and isinstance(settings.max_depth, int):
        raise ConfigError(f"max_depth {metres:g}: a {settings.model_type} takes whole metres")
    else:
        settings.max_depth = whole


def _multiple(settings: Any, processor: dict[str, Any]) -> int:
    """Return of how many pixels sides must be multiples: of the processor's rule and the patch."""
    inner = getattr(settings, "backbone_config", None)
    patch = getattr(settings, "patch_size", None) or getattr(inner, "patch_size", None)
    patch = max(patch) if isinstance(patch, list | tuple) else patch
    rules = (processor.get("ensure_multiple_of"), processor.get("size_divisor"), patch)
    return math.lcm(*(int(one) for one in rules if one and one >= 1))
