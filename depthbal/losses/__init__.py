"""Losses for imbalanced regression; importable with torch, NumPy and scikit-learn alone."""

from depthbal.losses.balanced_mse import BMCLoss, BNILoss, GAILoss
from depthbal.losses.base import RegressionLoss
from depthbal.losses.baselines import MSELoss
from depthbal.losses.evidence import log_evidence
from depthbal.losses.readout import truncated_normal_mean

LOSSES: dict[str, type[RegressionLoss]] = {
    loss.__name__: loss for loss in (BMCLoss, BNILoss, GAILoss, MSELoss)
}

__all__ = [
    "LOSSES",
    "BMCLoss",
    "BNILoss",
    "GAILoss",
    "MSELoss",
    "RegressionLoss",
    "log_evidence",
    "truncated_normal_mean",
]
