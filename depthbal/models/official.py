"""The published NYUD2-DIR checkpoints (.pth.tar), read without running code from them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthbal.errors import CheckpointError
from depthbal.models.weights import first_few, read_weight_file

logger = logging.getLogger(__name__)

PREFIX = "module."
"""What torch.nn.DataParallel, with which the published models were trained, puts before a name."""
LEFT_OUT = "R.FDS."
"""Statistics that feature distribution smoothing keeps for training; no part of the function."""


def read_official_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a published checkpoint holds: tensors, plain values and numbers, nothing else.

    The weights are under "state_dict" by our names: without `module.`, which they may carry, and
    without the `R.FDS.` buffers of models trained with feature distribution smoothing.

    Args:
        path: a .pth.tar file, in PyTorch's present or its old format.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is damaged, asks for code, was written by depthbal itself, or holds
            something else than finite weights.
    """
    content = read_weight_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise CheckpointError(
            f"{path} is no published checkpoint: expected a dictionary with the weights under "
            "'state_dict'"
        )
    if "depthbal" in content:
        raise CheckpointError(
            f"{path} was written by depthbal itself; open it with depthbal.load_predictor"
        )
    return {**content, "state_dict": _own_names(content["state_dict"], path)}


def _own_names(published: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return the network's weights under its own names."""
    state = {str(name).removeprefix(PREFIX): value for name, value in published.items()}
    if len(state) < len(published):
        raise CheckpointError(f"{path} holds the same weights with and without {PREFIX!r}")
    left_out = [name for name in state if name.startswith(LEFT_OUT)]
    if left_out:
        logger.info("%s: left out, for training only: %s", path, first_few(left_out))
    state = {name: value for name, value in state.items() if name not in left_out}
    if strangers := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path} holds no tensors under {first_few(strangers)}")
    if broken := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(
            f"{path} holds NaN or infinite weights in {len(broken)} tensors, such as {broken[0]}: "
            "its training has diverged, or the file is damaged"
        )
    return state
