"""The task, its settings, the run folder, and evaluation of a run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.training.depth import DepthTask
    from depthbal.training.evaluate import evaluate_run
    from depthbal.training.fds import FeatureSmoothing
    from depthbal.training.runs import Run, open_run
    from depthbal.training.schedules import WarmupCosine
    from depthbal.training.task import Task

_HOMES = {
    "DepthTask": "depth",
    "FeatureSmoothing": "fds",
    "Run": "runs",
    "Task": "task",
    "WarmupCosine": "schedules",
    "evaluate_run": "evaluate",
    "open_run": "runs",
}
__all__ = [
    "DepthTask",
    "FeatureSmoothing",
    "Run",
    "Task",
    "WarmupCosine",
    "evaluate_run",
    "open_run",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for: the engine takes seconds."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
