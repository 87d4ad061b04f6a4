"""Where images and depth come from, and how they are fed to a network."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.data.datamodule import DepthDataModule
    from depthbal.data.dataset import DepthDataset
    from depthbal.data.folder import FolderDataModule
    from depthbal.data.nyud2 import NYUD2DataModule
    from depthbal.data.pairs import PairSource, PairSubset
    from depthbal.data.predictions import PredictionFolder
    from depthbal.data.rooms import RoomsDataModule
    from depthbal.data.sampler import EpochSampler
    from depthbal.data.transforms import EvalTransform, TrainTransform

_HOMES = {
    "DepthDataModule": "depthbal.data.datamodule",
    "DepthDataset": "depthbal.data.dataset",
    "EpochSampler": "depthbal.data.sampler",
    "EvalTransform": "depthbal.data.transforms",
    "FolderDataModule": "depthbal.data.folder",
    "NYUD2DataModule": "depthbal.data.nyud2",
    "PairSource": "depthbal.data.pairs",
    "PairSubset": "depthbal.data.pairs",
    "PredictionFolder": "depthbal.data.predictions",
    "RoomsDataModule": "depthbal.data.rooms",
    "TrainTransform": "depthbal.data.transforms",
}

__all__ = [
    "DepthDataModule",
    "DepthDataset",
    "EpochSampler",
    "EvalTransform",
    "FolderDataModule",
    "NYUD2DataModule",
    "PairSource",
    "PairSubset",
    "PredictionFolder",
    "RoomsDataModule",
    "TrainTransform",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'depthbal.data' has no attribute {name!r}")
