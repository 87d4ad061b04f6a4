"""The task of one label per image: whole networks, and heads on frozen backbones."""

from typing import Any

from depthbal.data.label_data import LabelData
from depthbal.evaluation import GROUPS
from depthbal.losses import RegressionLoss
from depthbal.training.task import Task


class AgeTask(Task):
    """Train a network on one label per image, or its head alone (RRT, by `Task`'s settings).

    A loss of ours without a label range gets that of the training labels. The best epoch has the
    lowest bMAE on the validation split; a training reports its last one, published rows the best.

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

    def fit_prior(self, data: LabelData) -> None:
        """Take prior, initial bias and label range from the training labels."""
        super().fit_prior(data)
        self._take_range()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the training labels' range from the checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self._take_range()

    def _take_range(self) -> None:
        if isinstance(self.criterion, RegressionLoss) and self.criterion.label_range is None:
            self.criterion.set_label_range(self.label_range())
