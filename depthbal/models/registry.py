"""Which model classes a checkpoint may name; anything else must be handed over explicitly."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

from torch import nn

from depthbal.errors import ConfigError

MODELS: dict[str, type[nn.Module]] = {}
"""The registered classes by name; our own appear here once their module is imported."""

_OUR_MODELS = {
    "AgeRegressor": "depthbal.adapters.age.model",
    "ResNetMFF": "depthbal.models.resnet_mff",
    "SmpDepth": "depthbal.models.smp",
}

ModelClass = TypeVar("ModelClass", bound=type[nn.Module])


def register_model(model_class: ModelClass) -> ModelClass:
    """Let checkpoints name `model_class`, which must keep its JSON-able arguments in `init_args`.

    Args:
        model_class: an `nn.Module` from (B, 3, H, W) to metres (B, 1, h, w).

    Returns:
        The class itself, so that this works as a decorator.

    Raises:
        ConfigError: another class of the same name is registered already.

    Example:
        >>> from torch import nn
        >>> from depthbal.models import MODELS, register_model
        >>> @register_model
        ... class OnePixel(nn.Conv2d):
        ...     def __init__(self):
        ...         super().__init__(3, 1, kernel_size=1)
        ...         self.init_args = {}
        >>> MODELS.pop("OnePixel")().weight.shape
        torch.Size([1, 3, 1, 1])
    """
    name = model_class.__name__
    home = _OUR_MODELS.get(name, model_class.__module__)
    if MODELS.get(name, model_class) is not model_class or home != model_class.__module__:
        raise ConfigError(
            f"a model named {name!r} is registered already; rename {model_class.__module__}.{name}"
        )
    MODELS[name] = model_class
    return model_class


def registered_names() -> list[str]:
    """Return the sorted names that `build_model` knows."""
    return sorted({*_OUR_MODELS, *MODELS})


def build_model(name: str, init_args: Mapping[str, Any]) -> nn.Module:
    """Rebuild a registered model from its name and arguments, without its pre-trained weights.

    A checkpoint brings all weights itself, so `weights` is set to None: nothing is downloaded
    and no weight file of the training machine is looked for.

    Args:
        name: a registered class name, such as `"SmpDepth"`.
        init_args: the arguments the model was made with (its `init_args`).

    Raises:
        ConfigError: the name is not registered, or the arguments do not fit the class.

    Example:
        >>> from depthbal.models import build_model
        >>> model = build_model("SmpDepth", {"encoder": "mobilenet_v2", "weights": "imagenet"})
        >>> model.init_args["weights"] is None
        True
    """
    if name not in MODELS and name in _OUR_MODELS:
        import_module(_OUR_MODELS[name])
    if name not in MODELS:
        raise ConfigError(
            f"no model {name!r} is registered; known: {', '.join(registered_names())}"
        )
    signature = inspect.signature(MODELS[name])
    arguments = dict(init_args)
    if "weights" in signature.parameters:
        arguments["weights"] = None
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"the arguments of {name} do not fit: {error}") from error
    return MODELS[name](**arguments)
