"""The Lightning task, the command line, the run folder, and evaluation of a run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.training.evaluate import evaluate_run
    from depthbal.training.feature_smoothing import FeatureSmoothing
    from depthbal.training.runs import RunFolder
    from depthbal.training.schedules import WarmupCosine
    from depthbal.training.task import DepthTask

_HOMES = {
    "DepthTask": "task",
    "FeatureSmoothing": "feature_smoothing",
    "RunFolder": "runs",
    "WarmupCosine": "schedules",
    "evaluate_run": "evaluate",
}
__all__ = ["DepthTask", "FeatureSmoothing", "RunFolder", "WarmupCosine", "evaluate_run"]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for: the engine takes seconds."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
