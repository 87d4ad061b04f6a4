"""What a validation split is measured by, and what the best epoch means."""

from torch import Tensor, nn

from depthbal.evaluation import BinnedDepthMetrics, DepthBins

SELECTION_METRIC = "val/rmse_bins"
SELECTION_BIN_WIDTH = 0.5  # metres; narrower bins are too empty in a small split to choose by


class ValidationMetrics(nn.Module):
    """Pooled metrics, and the mean over 0.5 m bins of RMSE by which the best epoch is chosen.

    Every bin weighs as much as any other, so an epoch cannot win by near pixels alone.

    Args:
        max_depth: Upper end of the bins in metres.

    Example:
        >>> import torch
        >>> metrics = ValidationMetrics(max_depth=10.0)
        >>> target = torch.tensor([[[[1.0, 1.1, 9.0]]]])
        >>> metrics.update(target + torch.tensor([1.0, 1.0, 3.0]), target, target >= 0.7)
        >>> round(metrics.compute()["val/rmse_bins"], 3)
        2.0
    """

    def __init__(self, max_depth: float) -> None:
        super().__init__()
        self.metric = BinnedDepthMetrics(DepthBins.uniform(SELECTION_BIN_WIDTH, max_depth))

    def update(self, preds: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add a batch of predictions (B, 1, H, W) in metres."""
        self.metric.update(preds, target, mask)

    def compute(self) -> dict[str, float]:
        """Return the metrics by the names they are logged under; what has no pixel is left out."""
        result = self.metric.compute()
        values = {
            SELECTION_METRIC: result["per_bin_mean"]["overall"]["rmse"],
            "val/rmse": result["overall"]["rmse"],
            "val/abs_rel": result["overall"]["abs_rel"],
            "val/delta1": result["overall"]["delta1"],
        }
        return {name: value for name, value in values.items() if value is not None}

    def reset(self) -> None:
        """Forget the batches."""
        self.metric.reset()
