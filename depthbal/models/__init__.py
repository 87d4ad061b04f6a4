"""Networks from a normalised image to metres, and the registry that rebuilds them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.models.official import load_official_checkpoint
    from depthbal.models.registry import MODELS, build_model, register_model
    from depthbal.models.resnet_mff import ResNetMFF
    from depthbal.models.smp import SmpDepth

_HOMES = {
    "MODELS": "registry",
    "ResNetMFF": "resnet_mff",
    "SmpDepth": "smp",
    "build_model": "registry",
    "load_official_checkpoint": "official",
    "register_model": "registry",
}
__all__ = [
    "MODELS",
    "ResNetMFF",
    "SmpDepth",
    "build_model",
    "load_official_checkpoint",
    "register_model",
]


def __getattr__(name: str) -> Any:
    """Import a network only when it is asked for: torchvision and smp take seconds."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
