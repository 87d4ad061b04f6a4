"""The task, its settings, the run folder, and evaluation of a run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.training.depth import DepthTask as DepthTask
    from depthbal.training.evaluate import evaluate_run as evaluate_run
    from depthbal.training.fds import FeatureSmoothing as FeatureSmoothing
    from depthbal.training.runs import Run as Run
    from depthbal.training.runs import open_run as open_run
    from depthbal.training.schedules import WarmupCosine as WarmupCosine
    from depthbal.training.task import Task as Task

_HOMES = {
    "DepthTask": "depth",
    "FeatureSmoothing": "fds",
    "Run": "runs",
    "Task": "task",
    "WarmupCosine": "schedules",
    "evaluate_run": "evaluate",
    "open_run": "runs",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for: the engine takes seconds."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
