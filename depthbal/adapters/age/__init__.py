"""Age regression, or any scalar label of images: data, network and task.

Re-training a head (RRT) is a setting of every `depthbal.training.Task`: `weights_from`, `reset`,
`freeze` and `cache_features`, as in the shipped configs ``age/rrt_*``.
"""

from depthbal.adapters.age.data import AgeDataModule
from depthbal.adapters.age.drawn import DrawnAgesDataModule
from depthbal.adapters.age.model import AgeRegressor
from depthbal.adapters.age.task import AgeTask

__all__ = ["AgeDataModule", "AgeRegressor", "AgeTask", "DrawnAgesDataModule"]
