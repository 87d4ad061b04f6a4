"""The optimizer, its parameter groups, what it learns of the noise, and how it suits a device."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from depthbal.errors import ConfigError
from depthbal.losses.noise import DepthNoise, NoiseModule

NOISE_GROUP = "noise"
FORMS = {"fused": None, "foreach": None, "capturable": False, "differentiable": False}
"""The settings that say how an update is computed, not which, where nobody says anything."""


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    noise: Iterable[nn.Parameter],
    noise_lr: float,
    factors: Mapping[str, tuple[str, float]],
) -> list[dict[str, Any]]:
    """Split trainable parameters into weights, those of another rate (`factors`), and sigma."""
    noise = list(noise)
    own = {id(parameter) for parameter in noise}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named:
        if parameter.requires_grad and id(parameter) not in own:
            group, factor = factors.get(name, ("weights", 1.0))
            groups.setdefault(group, {"params": [], "name": group, "lr_factor": factor})
            groups[group]["params"].append(parameter)
    # one number that has far to travel, whatever the network's rate is
    sigma = {"params": noise, "name": NOISE_GROUP, "lr": noise_lr, "weight_decay": 0.0}
    return [*groups.values(), *([sigma] if noise else [])]


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply every group's learning rate by its factor."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1.0)


def hold_noise_lr(optimizer: Optimizer, noise_lr: float) -> None:
    """Undo what a schedule did to the learning rate of the noise scale."""
    for group in optimizer.param_groups:
        if group.get("name") == NOISE_GROUP:
            group["lr"] = noise_lr


def suit_device(optimizer: Optimizer, may_fuse: bool = True) -> Optimizer:
    """Return an optimizer in its device's form: Adam on a GPU is fused unless its settings say."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(group.get("fused") for group in optimizer.param_groups) and any(
        p.device.type == "cpu" and not p.is_contiguous() for p in parameters
    ):
        # PyTorch's fused CPU kernels (2.14.1) walk parameter and gradient in memory order: where
        # the two have other layouts, every entry gets another one's update, without an error
        raise ConfigError(
            f"fused {type(optimizer).__name__} on a CPU updates channels_last networks wrongly "
            "wherever a gradient has another memory layout; leave out "
            "--model.optimizer.init_args.fused, which is the default on GPUs anyway"
        )
    said = any(
        g.get(form) is not none for g in optimizer.param_groups for form, none in FORMS.items()
    )
    on_gpu = all(p.device.type == "cuda" and p.is_floating_point() for p in parameters)
    if may_fuse and type(optimizer) in (Adam, AdamW) and on_gpu and not said:
        known = inspect.signature(type(optimizer)).parameters
        settings = {name: value for name, value in optimizer.defaults.items() if name in known}
        groups = [{**group, "fused": True} for group in optimizer.param_groups]
        optimizer = type(optimizer)(groups, **{**settings, "fused": True})
    optimizer.register_load_state_dict_pre_hook(_keep_form)
    return optimizer


def _keep_form(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Give loaded groups the optimizer's own form: they may come from another device."""
    groups = [dict(loaded) for loaded in state["param_groups"]]
    for loaded, own in zip(groups, optimizer.param_groups, strict=False):
        loaded.update({form: own[form] for form in FORMS if form in own})
    return {**state, "param_groups": groups}


# ---- the noise scale in numbers ----


def noise_values(noise: NoiseModule, label_range: tuple[float, float]) -> dict[str, float]:
    """Return sigma at the ends and in the middle of the label range, and a and b if it has them."""
    low, high = label_range
    preds = torch.tensor([low, (low + high) / 2, high])
    state = [*noise.parameters(), *noise.buffers(), preds]
    with torch.no_grad():
        sigmas = noise(preds.to(state[0].device)).expand(3).tolist()
    values = dict(zip(("sigma_near", "sigma_middle", "sigma_far"), sigmas, strict=True))
    if isinstance(noise, DepthNoise):
        values |= {"a": noise.intercept.item(), "b": noise.slope.item()}
    return values


# ---- device and precision ----


def usable_accelerator(accelerator: str) -> str:
    """Return Lightning's accelerator without Apple's MPS, which has no float64."""
    if accelerator == "mps":
        raise ConfigError(
            "MPS has no float64, which the losses need: use --trainer.accelerator cpu"
        )
    only_mps = torch.backends.mps.is_available() and not torch.cuda.is_available()
    return "cpu" if accelerator == "auto" and only_mps else accelerator


def default_precision(accelerator: str = "auto") -> str:
    """Return the precision to train in: bfloat16 unless it is emulated, which is slow."""
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # torch cannot tell everywhere
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if native else "32-true"


def faster(device: torch.device, precision: str) -> list[str]:
    """Return what this machine could do faster than a training on a device in a precision."""
    found = []
    if device.type == "cpu" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        found.append(f"there is a GPU, {name}: --trainer.accelerator gpu trains on it")
    elif device.type == "cpu" and Path("/dev/nvidia0").exists():
        built = f"is for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        found.append(
            f"there is an NVIDIA GPU that this PyTorch cannot use: torch {torch.__version__} "
            f"{built}; install the build that suits the driver (nvidia-smi names its CUDA)"
        )
    if precision in ("32-true", "32") and default_precision(device.type) == "bf16-mixed":
        found.append("bfloat16 is native here: --trainer.precision bf16-mixed trains faster")
    return found


def default_device() -> str:
    """Return the device that evaluates and predicts: the first GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
