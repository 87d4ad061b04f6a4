"""The optimizer: its parameter groups, and how it computes an update on a device."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from depthbal.errors import ConfigError

NOISE_GROUP = "noise"
FUSABLE = (Adam, AdamW)
FORMS = ("fused", "foreach", "capturable", "differentiable")
"""The settings that say how an update is computed, not which."""


def parameter_groups(
    parameters: Iterable[nn.Parameter], noise: Iterable[nn.Parameter], noise_lr: float
) -> list[dict[str, Any]]:
    """Split trainable parameters into the weights and the noise scale.

    Sigma is one number that has to travel some tenths of a metre whatever the network's learning
    rate is: it gets its own rate, no weight decay and, by `hold_noise_lr`, no schedule.

    Args:
        parameters: All parameters; frozen ones are left out.
        noise: The parameters of the noise scale among them; may be empty.
        noise_lr: Learning rate of the noise scale, in its own (log) units.

    Example:
        >>> import torch
        >>> weight, sigma = (nn.Parameter(torch.zeros(1)) for _ in range(2))
        >>> [group["name"] for group in parameter_groups([weight, sigma], [sigma], 0.01)]
        ['weights', 'noise']
    """
    noise = list(noise)
    own = {id(parameter) for parameter in noise}
    weights = [p for p in parameters if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [{"params": weights, "name": "weights"}]
    if noise:
        groups.append({"params": noise, "name": NOISE_GROUP, "lr": noise_lr, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def hold_noise_lr(optimizer: Optimizer, noise_lr: float) -> None:
    """Undo what a schedule did to the learning rate of the noise scale."""
    for group in optimizer.param_groups:
        if group.get("name") == NOISE_GROUP:
            group["lr"] = noise_lr


def suit_device(optimizer: Optimizer, may_fuse: bool = True) -> Optimizer:
    """Return the optimizer in the form that suits its parameters' device.

    Adam and AdamW on a CUDA device update all parameters in one kernel (``fused=True``) unless
    the settings say how (fused, foreach, capturable, differentiable). A checkpoint that was
    written on another device does not change the form.

    Args:
        optimizer: Just made, without state.
        may_fuse: False where something else in the training cannot work with a fused optimizer.

    Raises:
        ConfigError: ``fused=True`` on a CPU that would compute wrong updates.

    Example:
        >>> import torch
        >>> on_cpu = Adam([nn.Parameter(torch.zeros(2))])
        >>> suit_device(on_cpu) is on_cpu
        True
    """
    _refuse_wrong_updates(optimizer)
    if may_fuse and type(optimizer) in FUSABLE and _is_open(optimizer) and _all_on_cuda(optimizer):
        optimizer = _fused(optimizer)
    optimizer.register_load_state_dict_pre_hook(_keep_form)
    return optimizer


def _refuse_wrong_updates(optimizer: Optimizer) -> None:
    """Refuse a fused CPU optimizer for parameters that are not laid out row by row.

    PyTorch's fused CPU kernels (2.14.1) walk parameter and gradient in memory order and do not
    look whether the two orders agree: where a gradient comes in another layout than its
    channels_last parameter, every entry gets another one's update, without an error.
    """
    for group in optimizer.param_groups:
        if group.get("fused") and any(
            parameter.device.type == "cpu" and not parameter.is_contiguous()
            for parameter in group["params"]
        ):
            raise ConfigError(
                f"fused {type(optimizer).__name__} on a CPU updates channels_last networks wrongly "
                "wherever a gradient has another memory layout; leave out "
                "--model.optimizer.init_args.fused, which is the default on GPUs anyway"
            )


def _is_open(optimizer: Optimizer) -> bool:
    """Return whether the settings leave the form to PyTorch, in every group."""
    undecided = {"fused": None, "foreach": None, "capturable": False, "differentiable": False}
    return all(
        group.get(form) is value
        for group in optimizer.param_groups
        for form, value in undecided.items()
    )


def _all_on_cuda(optimizer: Optimizer) -> bool:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return all(p.device.type == "cuda" and p.is_floating_point() for p in parameters)


def _fused(optimizer: Optimizer) -> Optimizer:
    """Return a new optimizer with the same settings and groups that is fused."""
    known = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in known}
    groups = [{**group, "fused": True} for group in optimizer.param_groups]
    return type(optimizer)(groups, **{**settings, "fused": True})


def _keep_form(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Give loaded groups the optimizer's own form: they may come from another device."""
    own = optimizer.param_groups
    if len(own) != len(state["param_groups"]):
        return state  # an error that PyTorch reports
    groups = [
        {**loaded, **{form: group[form] for form in FORMS if form in group}}
        for loaded, group in zip(state["param_groups"], own, strict=True)
    ]
    return {**state, "param_groups": groups}


def usable_accelerator(accelerator: str) -> str:
    """Return the accelerator to train on: the one asked for, without Apple's MPS.

    Priors, sums and read-outs are float64, which MPS does not have.

    Args:
        accelerator: ``trainer.accelerator``.

    Raises:
        ConfigError: MPS was asked for.

    Example:
        >>> usable_accelerator("cpu")
        'cpu'
    """
    if accelerator == "mps":
        raise ConfigError(
            "MPS has no float64, which the losses need: use --trainer.accelerator cpu"
        )
    only_mps = torch.backends.mps.is_available() and not torch.cuda.is_available()
    return "cpu" if accelerator == "auto" and only_mps else accelerator


def default_precision(accelerator: str = "auto") -> str:
    """Return Lightning's name of the precision to train in.

    Mixed precision with bfloat16 where the hardware multiplies it natively: GPUs since Ampere,
    CPUs with AVX512-BF16 or AMX. Others would emulate it, several times slower than float32. The
    losses compute in float32 anyway. A training writes what it took into config.yaml;
    ``--trainer.precision 32-true`` (or any other of Lightning's) decides instead.

    Args:
        accelerator: ``trainer.accelerator``.

    Example:
        >>> default_precision("cpu") in ("bf16-mixed", "32-true")
        True
    """
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    native = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


def _cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16; False where torch cannot tell."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def default_device() -> str:
    """Return the device that evaluates and predicts: the first GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
