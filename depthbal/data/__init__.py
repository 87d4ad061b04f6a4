"""Where images and labels come from, and how they are fed to a network."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.data.datamodule import DepthDataModule as DepthDataModule
    from depthbal.data.dataset import DepthDataset as DepthDataset
    from depthbal.data.dataset import SeededDataset as SeededDataset
    from depthbal.data.folder import FolderDataModule as FolderDataModule
    from depthbal.data.label_data import LabelData as LabelData
    from depthbal.data.loader import PADDING as PADDING
    from depthbal.data.loader import EpochSampler as EpochSampler
    from depthbal.data.nyud2 import NYUD2DataModule as NYUD2DataModule
    from depthbal.data.pairs import PairSource as PairSource
    from depthbal.data.pairs import PairSubset as PairSubset
    from depthbal.data.predictions import PredictionFolder as PredictionFolder
    from depthbal.data.rooms import RoomsDataModule as RoomsDataModule
    from depthbal.data.streets import StreetsDataModule as StreetsDataModule
    from depthbal.data.transforms import EvalTransform as EvalTransform
    from depthbal.data.transforms import TrainTransform as TrainTransform

_HOMES = {
    "datamodule": ["DepthDataModule"],
    "dataset": ["DepthDataset", "SeededDataset"],
    "folder": ["FolderDataModule"],
    "label_data": ["LabelData"],
    "loader": ["PADDING", "EpochSampler"],
    "nyud2": ["NYUD2DataModule"],
    "pairs": ["PairSource", "PairSubset"],
    "predictions": ["PredictionFolder"],
    "rooms": ["RoomsDataModule"],
    "streets": ["StreetsDataModule"],
    "transforms": ["EvalTransform", "TrainTransform"],
}
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"depthbal.data.{home}"), name)
    raise AttributeError(f"module 'depthbal.data' has no attribute {name!r}")
