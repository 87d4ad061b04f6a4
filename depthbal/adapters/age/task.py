"""The task of one label per image: whole networks, and heads on frozen backbones."""

from depthbal.evaluation import GROUPS
from depthbal.training.task import Task


class AgeTask(Task):
    """Train a network on one label per image, or its head alone (RRT, by `Task`'s settings).

    The best epoch has the lowest bMAE on the validation split; a training reports its last one,
    published rows the best.

    Source: Ren et al., CVPR 2022 (supplement 2.2); RRT: Yang et al., ICML 2021.

    Example:
        >>> from depthbal.adapters.age import AgeRegressor
        >>> from depthbal.losses import L1Loss
        >>> network = AgeRegressor("test_resnet", library="timm")
        >>> AgeTask(network, L1Loss()).selection_metric
        'val/bmae'
    """

    selection_metric = "val/bmae"
    selection_title = "validation bMAE"
    main_metric = "mae"
    balanced = ("mae", "mse")
    study_metrics = tuple(f"{group}.bmae" for group in GROUPS)
