"""What a checkpoint says about itself, and objects made again from it without running its code."""

import inspect
import json
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthbal.errors import CheckpointError, RunFolderError, first_line

FORMAT = 2
"""The layout of `checkpoint["depthbal"]` that this version writes and reads."""


def find_checkpoint(path: str | os.PathLike[str], checkpoint: str = "last") -> Path:
    """Return the checkpoint file that `path`, a run folder or a file, stands for."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise RunFolderError(f"no run folder or checkpoint at {path}")
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if not file.is_file():
        there = sorted(found.name for found in file.parent.glob("*.ckpt"))
        reason = f"its first epoch was never finished; continue the training with --resume {path}"
        if checkpoint == "best" and there:
            reason = (
                "no epoch was compared on a validation split; use --checkpoint last, or train with "
                "one"
            )
        elif (path / "metrics.json").is_file() and not (path / "config.yaml").is_file():
            reason = "only a run holds a network; a result of anybody's predictions has none"
        raise RunFolderError(
            f"the run folder {path} has no checkpoints/{file.name}; there: "
            f"{', '.join(there) or 'nothing'}; {reason}"
        )
    return file


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content after checking that depthbal wrote it and can read it."""
    try:
        # mmap: the optimizer's state, two thirds of a file, is never read
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, so depthbal did not write it; it is "
            "not opened, because that could run code"
        ) from error
    except Exception as error:  # truncation shows as one of many types
        raise CheckpointError(
            f"{path} is truncated or no checkpoint: {first_line(error)}; expected a run folder or "
            "its .ckpt file"
        ) from error
    entry = content.get("depthbal") if isinstance(content, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), int):
        raise CheckpointError(f"{path} was not written by depthbal: it has no 'depthbal' entry")
    if entry["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {entry['format']}, written by depthbal {entry.get('version')}; "
            f"this version reads format {FORMAT}: use that version, or train again"
        )
    return content  # type: ignore[no-any-return]


def class_path(cls: type[Any]) -> str:
    """Return the shortest dotted path under which a class can be imported."""
    parts = cls.__module__.split(".")
    for end in range(2, len(parts)):
        room = ".".join(parts[:end])
        if getattr(import_module(room), cls.__name__, None) is cls:
            return f"{room}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def describe_module(module: nn.Module, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return class path and arguments of a network or loss, of plain types only.

    Ours keep their arguments in ``init_args``; those of another are in its settings.
    """
    given = getattr(module, "init_args", (settings or {}).get("init_args") or {})
    return {"class_path": class_path(type(module)), "init_args": given}


def build_module(
    file: Path, role: str, described: Mapping[str, Any], classes: Iterable[type[nn.Module]] = ()
) -> nn.Module:
    """Make the network or loss that a checkpoint describes, without weights.

    Nothing but modules of depthbal is ever imported: other classes are those that the caller
    passes, and torch's own.
    """
    name, arguments = str(described["class_path"]), dict(described["init_args"])
    cls = {class_path(cls): cls for cls in classes}.get(name) or _our_class(name)
    if cls is None:
        raise CheckpointError(
            f"the {role} of {file} is a {name}, which is not a class of depthbal and is not "
            f"imported from a checkpoint: import it and pass classes=[{name.rpartition('.')[2]}], "
            "or name the run folder, whose config.yaml says where it is"
        )
    if "weights" in inspect.signature(cls).parameters:
        arguments["weights"] = None  # the checkpoint brings them
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the {role} of {file} cannot be made: {error}") from error


def _our_class(name: str) -> Any:
    """Return a network or loss of depthbal or torch by its path; None where it is none."""
    room, _, last = name.rpartition(".")
    if room != "torch.nn" and not re.fullmatch(r"depthbal(\.[a-z_0-9]+)+", room):
        return None
    with suppress(ImportError):
        found = getattr(import_module(room), last, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    return None


def part_of_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries under `prefix`, without it."""
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


def network_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the parameters of a checkpoint's network; what LoRA learned is added to the weights.

    W + lora_alpha / r B A, with the matrices A and B beside every weight W.
    """
    state, lora = part_of_state(content["state_dict"], "model."), content["depthbal"].get("lora")
    if lora is None:
        return state
    whole = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    for key, down in state.items():
        part, is_down, _ = key.partition(".lora_A.")
        if is_down:
            up = state[key.replace(".lora_A.", ".lora_B.")]
            weight = whole[f"{part}.weight"]
            whole[f"{part}.weight"] = weight + lora["lora_alpha"] / lora["r"] * (up @ down)
    return whole


def identity(described: Mapping[str, Any]) -> str:
    """Return a module's class and arguments, without the weights that its training started from."""
    arguments = {k: v for k, v in (described.get("init_args") or {}).items() if k != "weights"}
    name = str(described.get("class_path")).rpartition(".")[2]
    return f"{name} {json.dumps(arguments, sort_keys=True)}"
