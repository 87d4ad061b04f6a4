"""Monocular depth estimation that is accurate where training data are rare."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.foreign import evaluate
    from depthbal.predictor import Predictor, load_predictor

__version__ = "0.2.0"
__all__ = ["Predictor", "__version__", "evaluate", "load_predictor"]


def __getattr__(name: str) -> Any:
    """Import a name's file only when it is asked for, so that `import depthbal` stays instant."""
    homes = {"Predictor": "predictor", "load_predictor": "predictor", "evaluate": "foreign"}
    if name in homes:
        return getattr(import_module(f"depthbal.{homes[name]}"), name)
    raise AttributeError(f"module 'depthbal' has no attribute {name!r}")
