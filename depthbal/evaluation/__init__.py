"""Where along the label axis a model fails: bins, shots, metrics, the balanced mask, protocols."""

from depthbal.evaluation.balanced_mask import BalancedMask, balanced_mask, load_balanced_mask
from depthbal.evaluation.bins import SHOTS, DepthBins, LabelBins
from depthbal.evaluation.eigen import EigenEvaluation, eigen_crop
from depthbal.evaluation.metrics import BinnedDepthMetrics, BinnedMetrics
from depthbal.evaluation.protocol import Evaluation
from depthbal.evaluation.scores import DEPTH_METRICS, GROUPS, LABEL_METRICS
from depthbal.evaluation.summary import summarise
from depthbal.evaluation.sums import binned_sums
from depthbal.evaluation.terms import LABEL_TERMS, MIN_PREDICTION, TERMS

__all__ = [
    "DEPTH_METRICS",
    "GROUPS",
    "LABEL_METRICS",
    "LABEL_TERMS",
    "MIN_PREDICTION",
    "SHOTS",
    "TERMS",
    "BalancedMask",
    "BinnedDepthMetrics",
    "BinnedMetrics",
    "DepthBins",
    "EigenEvaluation",
    "Evaluation",
    "LabelBins",
    "balanced_mask",
    "binned_sums",
    "eigen_crop",
    "load_balanced_mask",
    "summarise",
]
