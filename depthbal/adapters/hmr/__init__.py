"""Human mesh recovery: SPIN's regressor re-trained with Balanced MSE."""

from depthbal.adapters.hmr.backbone import ResNet50Features, freeze
from depthbal.adapters.hmr.body import BodyModel, evaluation_joints, load_body
from depthbal.adapters.hmr.checkpoint import load_spin_checkpoint
from depthbal.adapters.hmr.distance import (
    BalancedError,
    balanced_error,
    geodesic_pose_distance,
    vertex_distance,
)
from depthbal.adapters.hmr.head import MeanParams, Prediction, SpinHead, load_mean_params
from depthbal.adapters.hmr.metrics import mpjpe, mpvpe, pa_mpjpe
from depthbal.adapters.hmr.smpl_files import read_joint_regressor, read_smpl, synthetic_smpl

__all__ = [
    "BalancedError",
    "BodyModel",
    "MeanParams",
    "Prediction",
    "ResNet50Features",
    "SpinHead",
    "balanced_error",
    "evaluation_joints",
    "freeze",
    "geodesic_pose_distance",
    "load_body",
    "load_mean_params",
    "load_spin_checkpoint",
    "mpjpe",
    "mpvpe",
    "pa_mpjpe",
    "read_joint_regressor",
    "read_smpl",
    "synthetic_smpl",
    "vertex_distance",
]
