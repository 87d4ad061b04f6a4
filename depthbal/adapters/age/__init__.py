"""Age regression, or any scalar label of images: data, model, task and two-stage re-training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.adapters.age.csv_data import AgeDataModule
    from depthbal.adapters.age.data import LabelDataModule
    from depthbal.adapters.age.drawn import DrawnAgesDataModule
    from depthbal.adapters.age.evaluation import evaluate_age
    from depthbal.adapters.age.model import AgeRegressor
    from depthbal.adapters.age.prediction import predict_ages
    from depthbal.adapters.age.task import AgeTask

_HOMES = {
    "AgeDataModule": "csv_data",
    "AgeRegressor": "model",
    "AgeTask": "task",
    "DrawnAgesDataModule": "drawn",
    "LabelDataModule": "data",
    "evaluate_age": "evaluation",
    "predict_ages": "prediction",
}
__all__ = [
    "AgeDataModule",
    "AgeRegressor",
    "AgeTask",
    "DrawnAgesDataModule",
    "LabelDataModule",
    "evaluate_age",
    "predict_ages",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
