"""Where along the label axis a model fails: bins, shots, scores, the balanced mask, protocols."""

from depthbal.evaluation.balanced_errors import balanced_errors
from depthbal.evaluation.balanced_mask import BalancedMask, balanced_mask, load_balanced_mask
from depthbal.evaluation.balancing import JointHistogram, choose_balance
from depthbal.evaluation.bins import DEPTH, SHOTS, DepthBins, Label, LabelBins
from depthbal.evaluation.examples import Example, choose_examples
from depthbal.evaluation.protocols import eigen_crop
from depthbal.evaluation.scores import Scores
from depthbal.evaluation.summary import GROUPS, summarise
from depthbal.evaluation.terms import EDGE_TERMS, LABEL_TERMS, TERMS, metrics_of

__all__ = [
    "DEPTH",
    "EDGE_TERMS",
    "GROUPS",
    "LABEL_TERMS",
    "SHOTS",
    "TERMS",
    "BalancedMask",
    "DepthBins",
    "Example",
    "JointHistogram",
    "Label",
    "LabelBins",
    "Scores",
    "balanced_errors",
    "balanced_mask",
    "choose_balance",
    "choose_examples",
    "eigen_crop",
    "load_balanced_mask",
    "metrics_of",
    "summarise",
]
