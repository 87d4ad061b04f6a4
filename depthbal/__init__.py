"""Monocular depth estimation that is accurate where training data are rare."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.predictor import Predictor, load_predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load_predictor"]


def __getattr__(name: str) -> Any:
    """Import the predictor only when it is asked for, so that `import depthbal` stays instant."""
    if name in ("Predictor", "load_predictor"):
        return getattr(import_module("depthbal.predictor"), name)
    raise AttributeError(f"module 'depthbal' has no attribute {name!r}")
