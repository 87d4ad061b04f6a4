"""The published NYUD2-DIR checkpoints (.pth.tar) into `ResNetMFF`, running no code from them."""

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthbal.errors import CheckpointError, ConfigError
from depthbal.models.resnet_mff import ResNetMFF
from depthbal.models.weights import first_few, load_exactly

logger = logging.getLogger(__name__)

PREFIX = "module."
"""What torch.nn.DataParallel, with which the published models were trained, puts before a name."""
LEFT_OUT = "R.FDS."
"""Statistics that feature distribution smoothing keeps for training; no part of the function."""


class _NumberType:
    """Stands in for numpy.dtype while a file is read: the type of one number, nothing else."""

    def __init__(self, code: str, *_: Any) -> None:
        if str(code)[:1] not in ("b", "i", "u", "f"):
            raise pickle.UnpicklingError(f"a NumPy scalar of type {code!r}")
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        self.code = f"{'>' if state[1] == '>' else '<'}{self.code}"


def _number(kind: Any, data: Any) -> Any:
    """Stands in for NumPy's scalar constructor: the Python number in these bytes."""
    if not isinstance(kind, _NumberType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a NumPy scalar without type or bytes")
    return np.frombuffer(data, kind.code, count=1)[0].item()


_STAND_INS: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1 wrote this name, NumPy 2 the next
    (_number, "numpy._core.multiarray.scalar"),
    (_NumberType, "numpy.dtype"),
]


def read_official_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a published checkpoint holds: tensors, plain values and numbers, nothing else.

    NumPy scalars, which published files hold beside the weights, become Python numbers. No code
    from the file is run: whatever would need code to be rebuilt is refused.

    Args:
        path: a .pth.tar file, in PyTorch's present or its old format.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is truncated, no checkpoint, or asks for code.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no checkpoint file {path}")
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text is left out: it advises to open such a file all the same
        if not zipfile.is_zipfile(path) and "Unsupported global" not in str(error):
            raise CheckpointError(
                f"{path} is truncated or no checkpoint, perhaps a web page saved under its name"
            ) from error
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors and numbers; it is not opened, because "
            "that could run code"
        ) from error
    except Exception as error:  # every kind of damage raises its own type
        raise CheckpointError(f"{path} is truncated or no checkpoint: {_reason(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise CheckpointError(
            f"{path} is no published checkpoint: expected a dictionary with the weights under "
            "'state_dict'"
        )
    return content


def official_state_dict(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return a published checkpoint's weights under our names: no `module.`, no `R.FDS.` buffers.

    Args:
        content: what `read_official_checkpoint` returned.
        path: of the file, for messages.

    Raises:
        CheckpointError: it is a file of depthbal, or holds something else than tensors.
    """
    if "depthbal" in content:
        raise CheckpointError(
            f"{path} was written by depthbal itself; open it with depthbal.load_predictor"
        )
    state = {str(name).removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
    if len(state) < len(content["state_dict"]):
        raise CheckpointError(f"{path} holds the same weights with and without {PREFIX!r}")
    left_out = [name for name in state if name.startswith(LEFT_OUT)]
    if left_out:
        logger.info("%s: left out, for training only: %s", path, first_few(left_out))
    state = {name: value for name, value in state.items() if name not in left_out}
    strangers = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(f"{path} holds no tensors under {first_few(strangers)}")
    return state


def load_official_checkpoint(path: str | Path) -> ResNetMFF:
    """Return the network of a published NYUD2-DIR checkpoint (.pth.tar), in evaluation mode.

    Every weight is accounted for. Names may carry DataParallel's `module.`; the `R.FDS.` buffers
    of models trained with feature distribution smoothing are left out. The file is read without
    running code from it.

    Source: checkpoints of Yang et al., ICML 2021, and Ren et al., CVPR 2022.

    Args:
        path: the file.

    Shape:
        of the network: (B, 3, 228, 304), normalised -> metres (B, 1, 114, 152), read raw

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is truncated, asks for code, or is another network's (lists what is
            missing, unexpected or of another shape).

    Example:
        >>> import tempfile, torch
        >>> from depthbal.models import ResNetMFF, load_official_checkpoint
        >>> weights = {f"module.{k}": v for k, v in ResNetMFF().state_dict().items()}
        >>> file = tempfile.NamedTemporaryFile(suffix=".pth.tar")
        >>> torch.save({"epoch": 9, "state_dict": weights}, file.name)
        >>> model = load_official_checkpoint(file.name)
        >>> torch.equal(model.R.conv2.bias, weights["module.R.conv2.bias"])
        True
    """
    return build_official(read_official_checkpoint(path), path)


def build_official(content: Mapping[str, Any], path: str | Path) -> ResNetMFF:
    """Return the network of a checkpoint that has been read, in evaluation mode.

    Args:
        content: what `read_official_checkpoint` returned.
        path: of the file, for messages.

    Raises:
        CheckpointError: as `load_official_checkpoint`.
    """
    state = official_state_dict(content, path)
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{path} holds NaN or infinite weights in {len(broken)} tensors, such as {broken[0]}: "
            "its training has diverged, or the file is damaged"
        )
    model = ResNetMFF()
    load_exactly(model, state, f"{path} into the published ResNet-50 network (ResNetMFF)")
    return model.eval()


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
