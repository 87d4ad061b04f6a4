"""Parameters from a local file, or by a published name, into a network; every key accounted for."""

import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from depthbal.errors import CheckpointError, ConfigError, first_line

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".safetensors", ".pth.tar")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which of these keys a saved dictionary may hold the parameters themselves."""
HEADS = ("fc", "_fc", "classifier", "head", "last_linear", "decoder", "segmentation_head")
"""First names of the parameters an encoder does not have; a whole network's file may hold them."""
NUMPY_NUMBERS: list[Any] = [
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "?efd"},
    # of NumPy 1 and 2
    *((np.float64().__reduce__()[0], f"numpy.{c}.multiarray.scalar") for c in ("core", "_core")),
]
"""What PyTorch may make while it reads a file besides tensors and plain values: NumPy's numbers,
which training codes leave beside the weights."""


# ---- published names ----


def unknown_name(kind: str, name: str, known: Sequence[str]) -> ConfigError:
    """Return the error for a misspelt name, with the nearest known ones."""
    near = get_close_matches(name, known, n=5, cutoff=0.5)
    told = f"did you mean {', '.join(near)}?" if near else f"known: {first_few(list(known), 20)}"
    return ConfigError(f"no {kind} {name!r}; {told}")


@contextmanager
def downloading(weights: str) -> Iterator[None]:
    """Say what is fetched, and name the two other ways where a library cannot get it."""
    where = "huggingface.co or download.pytorch.org, unless cached"
    logger.info("Fetching weights %r (%s); without a network give weights: FILE", weights, where)
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # of whichever library: no network, no such name, no space
        raise ConfigError(
            f"weights {weights!r} cannot be had ({first_line(error)}); give the path of an encoder "
            "state dict (.pth, .pt, .safetensors) as weights, or weights=None to start from random "
            "ones"
        ) from error


def torchvision_weights(published: Any, name: str) -> dict[str, Tensor]:
    """Return the parameters that torchvision publishes, such as of `ResNet50_Weights`, by name."""
    if name not in published.__members__:
        raise unknown_name("weights", name, list(published.__members__))
    with downloading(name):
        return dict(published[name].get_state_dict(progress=True, check_hash=True))


def timm_name(network: str, weights: str) -> str:
    """Return the name under which timm knows a network with weights, "imagenet" its default's."""
    return network if weights == "imagenet" else f"{network.partition('.')[0]}.{weights}"


# ---- files ----


def is_weight_file(weights: str) -> bool:
    """Return whether `weights` means a path rather than the name of published weights."""
    return weights.lower().endswith(SUFFIXES) or Path(weights).is_file()


def read_weight_file(path: str | Path) -> Any:
    """Return what a .pth, .pt or .safetensors file holds, of which no code is run."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no weight file at {path}; give an existing file, or weights=None")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to open it all the same
        raise CheckpointError(
            f"{path} is damaged, no file of weights, or holds more than tensors and numbers; it is "
            "not opened, because that could run code; save the state_dict() alone"
        ) from error
    except Exception as error:  # each format reports damage in its own way
        raise CheckpointError(
            f"{path} is damaged or no file of weights: {first_line(error)}"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the parameters in a file, under one of `WRAPPERS` or plainly."""
    content = read_weight_file(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state = dict(content) if isinstance(content, Mapping) else {}
    strangers = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if strangers or not state:
        raise CheckpointError(
            f"{path} is no state dict: expected a dictionary of tensors, or one under "
            f"{' or '.join(WRAPPERS)}; no tensors under {first_few(strangers) or 'any name'}"
        )
    return state


def load_encoder_file(encoder: nn.Module, path: str | Path) -> None:
    """Fill an encoder from a file whose keys may carry a prefix such as `module.` or `encoder.`.

    The prefix is the one under which most names and shapes agree. Every parameter of the encoder
    must be in the file; of the file, only classifier and decoder parameters may be left over, and
    a log line names them.
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

    def fitting(prefixes: tuple[str, str]) -> int:
        own, prefix = prefixes
        ours = {own + key[len(prefix) :]: v for key, v in found.items() if key.startswith(prefix)}
        return sum(k in wanted and wanted[k].shape == value.shape for k, value in ours.items())

    own, prefix = max(product(_beginnings(wanted, 1), _beginnings(found, 3)), key=fitting)
    return prefix, own


def _beginnings(keys: Iterable[str], depth: int) -> list[str]:
    """Return every dotted beginning of up to `depth` names, shortest first."""
    names = [key.split(".")[:-1] for key in keys]
    dotted = {"".join(f"{one}." for one in path[:n]) for path in names for n in range(depth + 1)}
    return sorted(dotted, key=lambda prefix: (prefix.count("."), prefix))


def _is_head(key: str, prefix: str) -> bool:
    """Return whether `key` names a part of a whole network beyond its encoder."""
    outer = key.removeprefix("module.").removeprefix("model.")
    return any(name.split(".")[0] in HEADS for name in (key.removeprefix(prefix), outer))


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`, an error unless all names and shapes agree.

    `what` names the two ends for the message, such as "last.ckpt into SmpDepth".
    """
    try:
        # some smp encoders override load_state_dict to rename older files' keys; ours are exact;
        # without the metadata of a state torch allows batch norm's step counters to be absent
        nn.Module.load_state_dict(module, dict(state))
    except RuntimeError as error:  # one line each: all that is missing, all that is unexpected
        lines = [shorten(line, 240) for line in str(error).splitlines()[1:4]]
        raise CheckpointError(f"cannot load {what}: {'; '.join(lines)}") from error


def first_few(names: list[str], limit: int = 5) -> str:
    """Return up to `limit` names in one line, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
