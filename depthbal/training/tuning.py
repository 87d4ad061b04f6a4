"""How much of a network is trained: its encoder frozen, slowed or adapted by LoRA."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from depthbal.data.cache import cache_file, cached
from depthbal.data.loader import LateLoader, single_threaded
from depthbal.errors import ConfigError
from depthbal.io import show_progress
from depthbal.models.weights import first_few

ATTENTION = r".*att(?:n|ention)\.(?:.*\.)?(?:qkv|q_proj|v_proj|query|value|q|kv)"
"""The layers that LoRA adapts unless others are named: those of the attention's query and value."""
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ATTENTION}
NUMBERED = re.compile(r"(?:^|[._])(?:blocks?|layers?|stages?|features)[._]?(\d+)\.")
"""Where names of parameters hold the number of a layer."""
_FORMAT = 3  # of the cached files; raised whenever features of the same key would be others


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
    """Put LoRA of a rank, or of what differs from `LORA`, into the encoder; return its settings."""
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
    """Return of the encoder's parameters group and factor: factor decay^(n + 1 - i) of layer i."""
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


# ---- features of a frozen backbone: computed once, kept in the cache, read for images ----


def use_features(data: Any, backbone: nn.Module, device: torch.device | str = "cpu") -> None:
    """Let training and validation of a data module read features in place of images.

    Its data sets need ``plain()``, the same samples without augmentation, addressed by index, and
    ``fingerprint()``, a digest of all that these depend on. Once ``features`` (N, D) is set, their
    samples have "features" (D,) in place of "image". A second training computes nothing.
    """

    def compute(images: Any) -> NDArray[np.float32]:
        backbone.to(device).eval()
        loader: LateLoader[Any] = LateLoader(
            images.plain(),
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            worker_init_fn=single_threaded,
        )
        shown = track(loader, "Features of images", transient=True, disable=not show_progress())
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
            found = [backbone(batch["image"].to(device).float()).cpu() for batch in shown]
        return torch.cat(found).numpy()

    for images in (data.train_set, data.val_set):
        if images is not None:
            name = f"{_FORMAT} {fingerprint(backbone)} {images.fingerprint()} image"
            file = cache_file("features", f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy")
            found = cached(file, np.load, partial(compute, images), np.save)
            images.features = torch.from_numpy(found)


def fingerprint(module: nn.Module) -> str:
    """Return a digest of a network's structure, weights and running statistics."""
    digest = hashlib.sha256(repr(module).encode())
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def first_process_first(trainer: pl.Trainer) -> Iterator[None]:
    """Run a block in the first process, then in the others, which find what it has computed."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()
