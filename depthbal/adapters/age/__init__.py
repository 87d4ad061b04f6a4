"""Age regression, or that of any scalar label of images: data, network and task."""

from depthbal.adapters.age.data import AgeDataModule
from depthbal.adapters.age.drawn import DrawnAgesDataModule
from depthbal.adapters.age.task import AgeRegressor, AgeTask

__all__ = ["AgeDataModule", "AgeRegressor", "AgeTask", "DrawnAgesDataModule"]
