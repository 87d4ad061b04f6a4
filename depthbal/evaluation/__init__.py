"""Where along the label axis a model fails: bins, shots, metrics, the balanced mask, protocols."""

from depthbal.evaluation.balanced_mask import BalancedMask, balanced_mask, load_balanced_mask
from depthbal.evaluation.bins import SHOTS, DepthBins, LabelBins
from depthbal.evaluation.calibration import coverage_counts
from depthbal.evaluation.eigen import EigenEvaluation, eigen_crop
from depthbal.evaluation.examples import Example, choose_examples
from depthbal.evaluation.joint import joint_histogram
from depthbal.evaluation.label import DEPTH, Label
from depthbal.evaluation.metrics import BinnedDepthMetrics, BinnedMetrics
from depthbal.evaluation.protocol import Evaluation
from depthbal.evaluation.samples import SampleEvaluation
from depthbal.evaluation.scores import DEPTH_METRICS, GROUPS, LABEL_METRICS, metrics_of
from depthbal.evaluation.summary import summarise
from depthbal.evaluation.sums import binned_sums
from depthbal.evaluation.terms import LABEL_TERMS, MIN_ERROR, MIN_PREDICTION, TERMS

__all__ = [
    "DEPTH",
    "DEPTH_METRICS",
    "GROUPS",
    "LABEL_METRICS",
    "LABEL_TERMS",
    "MIN_ERROR",
    "MIN_PREDICTION",
    "SHOTS",
    "TERMS",
    "BalancedMask",
    "BinnedDepthMetrics",
    "BinnedMetrics",
    "DepthBins",
    "EigenEvaluation",
    "Evaluation",
    "Example",
    "Label",
    "LabelBins",
    "SampleEvaluation",
    "balanced_mask",
    "binned_sums",
    "choose_examples",
    "coverage_counts",
    "eigen_crop",
    "joint_histogram",
    "load_balanced_mask",
    "metrics_of",
    "summarise",
]
