"""What a checkpoint says about itself, so that it can be opened without Lightning and config."""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

import depthbal
from depthbal.checkpoint import FORMAT
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD
from depthbal.errors import CheckpointError
from depthbal.losses import LOSSES
from depthbal.models import MODELS
from depthbal.predictor import Readout

DEFAULT_INPUT = {"short_side": None, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
"""What a network is taken to expect when its data module does not say."""


def describe_checkpoint(
    model: nn.Module, criterion: nn.Module, input_spec: dict[str, Any], readout: Readout
) -> dict[str, Any]:
    """Return the entry ``checkpoint["depthbal"]``, of plain types only.

    Args:
        model: The network; one that is not in our registry is named by its full class path and
            must be handed to ``load_predictor``.
        criterion: The loss; one that is not ours likewise.
        input_spec: What the network expects of its input.
        readout: How predictions are read by default.
    """
    label_range = getattr(criterion, "label_range", None)
    return {
        "format": FORMAT,
        "version": depthbal.__version__,
        "model": describe_module(model, MODELS),
        "criterion": describe_module(criterion, LOSSES),
        "input": input_spec,
        "readout": readout,
        "label_range": None if label_range is None else [float(end) for end in label_range],
    }


def require_same(found: Any, own: dict[str, Any]) -> None:
    """Check that a checkpoint can continue in this training.

    Args:
        found: The checkpoint's entry, or whatever is in its place.
        own: The entry that this training writes.

    Raises:
        CheckpointError: Another network, or another class of loss.
    """
    if not isinstance(found, dict):
        raise CheckpointError("the checkpoint was not written by depthbal: it has no such entry")
    differences = [
        f"its {part} is {theirs}, this training's is {mine}"
        for part, theirs, mine in (
            ("model", identity(found.get("model")), identity(own["model"])),
            ("criterion", found.get("criterion", {}).get("name"), own["criterion"]["name"]),
        )
        if theirs != mine
    ]
    if differences:
        raise CheckpointError(
            f"the checkpoint belongs to another training: {'; '.join(differences)}"
        )


def identity(described: Any) -> str:
    """Return a module's name and arguments, without the weights that its training started from.

    Args:
        described: What `describe_module` returned.

    Example:
        >>> identity({"name": "SmpDepth", "init_args": {"arch": "unet", "weights": "imagenet"}})
        'SmpDepth {"arch": "unet"}'
    """
    arguments = dict(described.get("init_args") or {})
    arguments.pop("weights", None)
    return f"{described.get('name')} {json.dumps(arguments, sort_keys=True)}"


def describe_module(module: nn.Module, known: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Return the name and arguments of a module; one that is not known has its class path only."""
    cls = type(module)
    if known.get(cls.__name__) is cls:
        return {"name": cls.__name__, "init_args": module.init_args}
    return {"name": f"{cls.__module__}.{cls.__qualname__}", "init_args": None}
