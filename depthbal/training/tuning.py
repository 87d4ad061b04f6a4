"""How much of a network is trained: its encoder frozen, slowed or adapted by LoRA."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from depthbal.errors import ConfigError
from depthbal.models.weights import first_few

ATTENTION = r".*att(?:n|ention)\.(?:.*\.)?(?:qkv|q_proj|v_proj|query|value|q|kv)"
"""The layers that LoRA adapts unless others are named: those of the attention's query and value."""
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ATTENTION}
NUMBERED = re.compile(r"(?:^|[._])(?:blocks?|layers?|stages?|features)[._]?(\d+)\.")
"""Where names of parameters hold the number of a layer."""


def encoder_of(model: nn.Module) -> str:
    """Return the name of the part that is a network's encoder."""
    there = [name for name, _ in model.named_children()]
    usual = next((name for name in ("encoder", "backbone") if name in there), None)
    name: str | None = getattr(model, "encoder_name", usual)
    if name is None:
        raise ConfigError(
            f"{type(model).__name__} does not name its encoder: give it an attribute encoder_name, "
            f"one of its parts {there}"
        )
    return name


def find_part(model: nn.Module, name: str) -> str:
    """Return a part's full name, by which "encoder" is what the network says it is."""
    parts = [part for part, _ in model.named_modules()]
    if name in parts:
        return name
    if name == "encoder":
        return encoder_of(model)
    there = [part for part, _ in model.named_children()]
    there += ["encoder"] * hasattr(model, "encoder_name")
    raise ConfigError(f"{type(model).__name__} has no part {name!r}; it has {there}")


def add_lora(model: nn.Module, given: int | Mapping[str, Any]) -> dict[str, Any]:
    """Put LoRA beside linear layers of the encoder, which is trained no more; return its settings.

    Args:
        model: The network, changed in place.
        given: The rank, or what differs from `LORA`.
    """
    if find_spec("peft") is None:
        raise ConfigError('lora needs peft: pip install "depthbal[hf]"')
    from peft import LoraConfig, inject_adapter_in_model

    rank = {"r": given, "lora_alpha": 2 * given} if isinstance(given, int) else given
    settings: dict[str, Any] = {**LORA, **rank}
    if unknown := sorted(settings.keys() - LORA.keys()):
        raise ConfigError(f"lora has no {first_few(unknown)}; it has {', '.join(LORA)}")
    encoder, wanted = model.get_submodule(encoder_of(model)), settings["target_modules"]
    layers = [name for name, one in encoder.named_modules() if isinstance(one, nn.Linear)]
    chosen = [
        name
        for name in layers
        if (
            re.fullmatch(wanted, name)
            if isinstance(wanted, str)
            else any(f".{name}".endswith(f".{end}") for end in wanted)
        )
    ]
    if not chosen:
        kinds = sorted({name.rpartition(".")[2] for name in layers})
        raise ConfigError(
            f"lora finds none of {wanted} in the encoder of {type(model).__name__}; its linear "
            f"layers end in {', '.join(kinds) or 'nothing: it has none'} (target_modules)"
        )
    inject_adapter_in_model(LoraConfig(**{**settings, "target_modules": chosen}), encoder)
    return settings


def recompute_activations(model: nn.Module) -> None:
    """Have activations computed again in the backward pass (gradient checkpointing)."""
    names = ("activation_checkpointing_enable", "set_grad_checkpointing")  # transformers, timm
    for switch in (getattr(part, name, None) for part in model.modules() for name in names):
        if switch is not None:
            switch()
            return
    raise ConfigError(
        f"{type(model).__name__} cannot recompute activations: gradient_checkpointing is for "
        "networks of transformers and encoders of timm"
    )


def rate_factors(model: nn.Module, factor: float, decay: float) -> dict[str, tuple[str, float]]:
    """Return of every parameter of the encoder its group's name and learning-rate factor.

        factor * decay^(n + 1 - i)    for layer i from 0 (what comes before the first) to n

    Raises:
        ConfigError: No encoder, or one without numbered layers to decay over.
    """
    if factor == decay == 1.0:
        return {}
    prefix = f"{encoder_of(model)}."
    names = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    layers, last = dict[str, int](), 0
    for name in names:
        number = NUMBERED.search(name.removeprefix(prefix))
        layers[name] = int(number[1]) + 1 if number else last
        last = max(last, layers[name])
    if decay == 1.0:
        return dict.fromkeys(names, ("encoder", factor))
    if last == 0:
        raise ConfigError(f"layer_decay: no numbered layers in the encoder, {first_few(names)}")
    ranks = {layer: rank for rank, layer in enumerate(sorted({*layers.values()}))}
    return {
        name: (f"encoder_{ranks[layer]}", factor * decay ** (len(ranks) - ranks[layer]))
        for name, layer in layers.items()
    }


def trained_parameters(model: nn.Module) -> str:
    """Return how many of a network's parameters are trained, for people."""

    def count(parameters: Sequence[nn.Parameter]) -> str:
        trained = sum(one.numel() for one in parameters if one.requires_grad)
        return f"{trained:,} of {sum(one.numel() for one in parameters):,}"

    try:
        encoder = list(model.get_submodule(encoder_of(model)).parameters())
    except ConfigError:
        return count(list(model.parameters()))
    return f"{count(list(model.parameters()))}, of them in the encoder {count(encoder)}"
