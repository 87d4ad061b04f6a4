"""Trained networks as files for other runtimes: ONNX and torch.export, read-out included."""

from depthbal.exporting.graph import DepthGraph
from depthbal.exporting.readout_table import ReadoutTable

__all__ = ["DepthGraph", "ReadoutTable"]
