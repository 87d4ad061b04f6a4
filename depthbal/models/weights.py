"""Parameters from a local file into a network, with every key accounted for."""

import logging
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthbal.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".safetensors", ".pth.tar")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which of these keys a saved dictionary may hold the parameters themselves."""
HEADS = ("fc", "_fc", "classifier", "head", "last_linear", "decoder", "segmentation_head")
"""First names of the parameters an encoder does not have; a whole network's file may hold them."""


def is_weight_file(weights: str) -> bool:
    """Return whether `weights` means a path rather than the name of published weights.

    Example:
        >>> from depthbal.models.weights import is_weight_file
        >>> is_weight_file("encoder.pth"), is_weight_file("imagenet")
        (True, False)
    """
    return weights.lower().endswith(SUFFIXES) or Path(weights).is_file()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the parameters in a .pth, .pt or .safetensors file, running no code from it.

    Args:
        path: the file; parameters may lie under `state_dict`, `model_state_dict` or `model`.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is truncated, needs code to open, or holds no parameters.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no weight file at {path}; give an existing file, or weights=None")
    content: Any = None
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors and plain values, which are not opened "
            "because they can run code; save the encoder's state_dict() alone"
        ) from error
    except Exception as error:  # each format reports damage in its own way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"cannot read weights from {path}: {reason}") from error
    return _parameters_of(content, path)


def _parameters_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, unwrapped."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no parameters: expected a dictionary of tensors")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(
            f"{path} is not a state dict: no tensors under {first_few(strangers)}; expected a "
            f"dictionary of tensors, or one under {' or '.join(WRAPPERS)}"
        )
    return dict(content)


def load_encoder_file(encoder: nn.Module, path: str | Path) -> None:
    """Fill `encoder` from a file whose keys may carry a prefix such as `module.` or `encoder.`.

    The prefix is the one under which most names and shapes agree. Every parameter of the encoder
    must be in the file; of the file, only classifier and decoder parameters may be left over, and
    a log line names them.

    Args:
        encoder: the network to fill, changed only when everything fits.
        path: see `read_state_dict`.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it cannot be read, or belongs to another network (lists the differences).

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from torch import nn
        >>> from depthbal.models.weights import load_encoder_file
        >>> encoder = nn.Linear(2, 1)
        >>> state = {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(state, Path(folder) / "encoder.pth")
        ...     load_encoder_file(encoder, Path(folder) / "encoder.pth")
        >>> encoder.weight.tolist()
        [[1.0, 1.0]]
    """
    found = read_state_dict(path)
    wanted = encoder.state_dict()
    file_prefix, own_prefix = _best_prefixes(found, wanted)
    renamed, leftover = {}, []
    for key, value in found.items():
        name = own_prefix + key.removeprefix(file_prefix)
        if key.startswith(file_prefix) and name in wanted:
            renamed[name] = value
        elif _is_head(key, file_prefix):
            leftover.append(key)
        else:
            renamed[key] = value  # unexpected, and reported as such under the file's own name
    load_exactly(encoder, renamed, f"{path} into the encoder {type(encoder).__name__}")
    if leftover:
        logger.info("%s: left over, not in the encoder: %s", path, first_few(leftover))


def _best_prefixes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the prefixes to take from the file's names and to put before ours."""
    best, best_count = ("", ""), -1
    for own in ("", *_leading_names(wanted, depth=1)):
        for prefix in ("", *_leading_names(found, depth=3)):
            count = sum(
                key.startswith(prefix)
                and (ours := own + key[len(prefix) :]) in wanted
                and wanted[ours].shape == value.shape
                for key, value in found.items()
            )
            if count > best_count:
                best, best_count = (prefix, own), count
    return best


def _leading_names(keys: Iterable[str], depth: int) -> list[str]:
    """Return every dotted beginning of up to `depth` names, shortest first."""
    leading = set()
    for key in keys:
        names = key.split(".")[:-1][:depth]
        leading |= {".".join(names[: n + 1]) + "." for n in range(len(names))}
    return sorted(leading, key=lambda prefix: (prefix.count("."), prefix))


def _is_head(key: str, prefix: str) -> bool:
    """Return whether `key` names a part of a whole network beyond its encoder."""
    inner = key.removeprefix(prefix)
    outer = key.removeprefix("module.").removeprefix("model.")
    return inner.split(".")[0] in HEADS or outer.split(".")[0] in HEADS


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`, which stays as it was unless all names and shapes agree.

    Batch-norm step counters (`num_batches_tracked`) may be absent, as in files from before they
    existed.

    Args:
        module: the network to fill.
        state: parameters and buffers by name.
        what: the two ends, for the message, such as `"last.ckpt into SmpDepth"`.

    Raises:
        CheckpointError: lists the first missing, unexpected and differently shaped ones.

    Example:
        >>> from torch import nn
        >>> from depthbal.models.weights import load_exactly
        >>> load_exactly(nn.Linear(2, 1), {"weight": nn.Linear(2, 1).weight}, "a file into Linear")
        Traceback (most recent call last):
        ...
        depthbal.errors.CheckpointError: cannot load a file into Linear: 1 missing (bias)
    """
    wanted = module.state_dict()
    state = dict(state)
    for key, value in wanted.items():
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, value)
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": reshaped,
    }
    if any(problems.values()):
        listed = (f"{len(v)} {k} ({first_few(v)})" for k, v in problems.items() if v)
        raise CheckpointError(f"cannot load {what}: {'; '.join(listed)}")
    # some smp encoders override load_state_dict to rename older files' keys; ours are exact
    nn.Module.load_state_dict(module, state)


def first_few(names: list[str], limit: int = 5) -> str:
    """Return up to `limit` names in one line, and how many more there are.

    Example:
        >>> from depthbal.models.weights import first_few
        >>> first_few(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
