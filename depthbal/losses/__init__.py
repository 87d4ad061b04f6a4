"""Losses for imbalanced regression; importable with torch, NumPy, SciPy and scikit-learn alone."""

from depthbal.losses import calibration as calibration  # BalanceMap.load finds its maps by it
from depthbal.losses.balanced import BalancedMSELoss
from depthbal.losses.balanced_mse import BNILoss, GAILoss
from depthbal.losses.base import NonFiniteError, RegressionLoss
from depthbal.losses.baselines import (
    FocalRLoss,
    GradientLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    SILogLoss,
)
from depthbal.losses.bins import BinsLoss
from depthbal.losses.bmc import BMCLoss
from depthbal.losses.combined import CombinedLoss
from depthbal.losses.families import log_evidence
from depthbal.losses.label_weights import ReweightedLoss, label_weights
from depthbal.losses.log_labels import LogLabelLoss
from depthbal.losses.noise import DepthNoise, FixedNoise, LearnedNoise, NoiseModule
from depthbal.losses.posthoc import BalanceMap, balance_predictions, sigma_from_rmse
from depthbal.losses.readout import truncated_normal_mean

# of predictions of one number per label
LOSSES: dict[str, type[RegressionLoss]] = {
    loss.__name__: loss
    for loss in (
        BMCLoss,
        BNILoss,
        FocalRLoss,
        GAILoss,
        HuberLoss,
        L1Loss,
        MSELoss,
        ReweightedLoss,
        SILogLoss,
    )
}

__all__ = [
    "LOSSES",
    "BMCLoss",
    "BNILoss",
    "BalanceMap",
    "BalancedMSELoss",
    "BinsLoss",
    "CombinedLoss",
    "DepthNoise",
    "FixedNoise",
    "FocalRLoss",
    "GAILoss",
    "GradientLoss",
    "HuberLoss",
    "L1Loss",
    "LearnedNoise",
    "LogLabelLoss",
    "MSELoss",
    "NoiseModule",
    "NonFiniteError",
    "RegressionLoss",
    "ReweightedLoss",
    "SILogLoss",
    "balance_predictions",
    "label_weights",
    "log_evidence",
    "sigma_from_rmse",
    "truncated_normal_mean",
]
