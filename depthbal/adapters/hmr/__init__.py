"""Human mesh recovery: SPIN's regressor re-trained with Balanced MSE."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.adapters.hmr.body import BodyModel, load_body
    from depthbal.adapters.hmr.datamodule import HmrDataModule
    from depthbal.adapters.hmr.distance import balanced_error
    from depthbal.adapters.hmr.evaluation import evaluate_network
    from depthbal.adapters.hmr.metrics import mpjpe, mpvpe, pa_mpjpe
    from depthbal.adapters.hmr.network import SpinNetwork
    from depthbal.adapters.hmr.task import HmrTask

_HOMES = {
    "BodyModel": "body",
    "HmrDataModule": "datamodule",
    "HmrTask": "task",
    "SpinNetwork": "network",
    "balanced_error": "distance",
    "evaluate_network": "evaluation",
    "load_body": "body",
    "mpjpe": "metrics",
    "mpvpe": "metrics",
    "pa_mpjpe": "metrics",
}
__all__ = [
    "BodyModel",
    "HmrDataModule",
    "HmrTask",
    "SpinNetwork",
    "balanced_error",
    "evaluate_network",
    "load_body",
    "mpjpe",
    "mpvpe",
    "pa_mpjpe",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
