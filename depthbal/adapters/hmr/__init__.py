"""Human mesh recovery: SPIN's regressor re-trained with Balanced MSE."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from depthbal.adapters.hmr.datamodule import HmrDataModule
    from depthbal.adapters.hmr.evaluation import evaluate_network
    from depthbal.adapters.hmr.network import SpinNetwork
    from depthbal.adapters.hmr.task import HmrTask

_HOMES = {
    "HmrDataModule": "datamodule",
    "HmrTask": "task",
    "SpinNetwork": "network",
    "evaluate_network": "evaluation",
}
__all__ = [
    "BalancedError",
    "BodyModel",
    "HmrDataModule",
    "HmrTask",
    "MeanParams",
    "Prediction",
    "ResNet50Features",
    "SpinHead",
    "SpinNetwork",
    "balanced_error",
    "evaluate_network",
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


def __getattr__(name: str) -> Any:
    """Import the training's classes, and Lightning with them, where they are asked for."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
