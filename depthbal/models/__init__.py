"""Networks from a normalised image to metres, and their weights."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.models.heads import Head as Head
    from depthbal.models.hf import HFDepth as HFDepth
    from depthbal.models.resnet_mff import ResNetMFF as ResNetMFF
    from depthbal.models.resnet_mff import load_official_checkpoint as load_official_checkpoint
    from depthbal.models.smp import SmpDepth as SmpDepth

_HOMES = {
    "Head": "heads",
    "HFDepth": "hf",
    "ResNetMFF": "resnet_mff",
    "SmpDepth": "smp",
    "load_official_checkpoint": "resnet_mff",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a network only when it is asked for: torchvision and smp take seconds."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
