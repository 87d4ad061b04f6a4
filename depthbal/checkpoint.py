"""Finding and opening checkpoint files, without the training engine and without running code."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from depthbal.errors import CheckpointError, RunFolderError

FORMAT = 1
"""The newest layout of `checkpoint["depthbal"]` that this version reads."""

SECTIONS = ("format", "model", "criterion", "input", "readout", "label_range")


def find_checkpoint(path: str | os.PathLike[str], checkpoint: str = "last") -> Path:
    """Return the checkpoint file that `path`, a run folder or a file, stands for.

    Raises:
        RunFolderError: there is none; says what is there instead.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise RunFolderError(f"no run folder or checkpoint at {path}")
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if not file.is_file():
        there = sorted(found.name for found in file.parent.glob("*.ckpt"))
        reason = (
            "no epoch was compared on a validation split; use --checkpoint last, or train with one"
            if checkpoint == "best" and there
            else f"its first epoch was never finished; continue the training with --resume {path}"
        )
        raise RunFolderError(
            f"the run folder {path} has no checkpoints/{file.name}; there: "
            f"{', '.join(there) or 'nothing'}; {reason}"
        )
    return file


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content after checking that depthbal wrote it and can read it.

    Raises:
        CheckpointError: truncated, foreign, damaged, or of a newer format.
    """
    try:
        # mmap: the optimizer's state, two thirds of a file, is never read
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, so depthbal did not write it; it is "
            "not opened, because that could run code"
        ) from error
    except Exception as error:  # truncation shows as one of many types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hint = "" if path.suffix == ".ckpt" else "; expected a run folder or its .ckpt file"
        raise CheckpointError(f"{path} is truncated or no checkpoint{hint}: {reason}") from error
    entry = content.get("depthbal") if isinstance(content, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), int):
        raise CheckpointError(f"{path} was not written by depthbal: it has no 'depthbal' entry")
    if entry["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {entry['format']}, written by depthbal {entry.get('version')}; "
            f"this version reads up to format {FORMAT}: upgrade depthbal"
        )
    missing = [f"depthbal.{key}" for key in SECTIONS if key not in entry]
    missing += [] if isinstance(content.get("state_dict"), dict) else ["state_dict"]
    if missing:
        raise CheckpointError(f"{path} is damaged: it lacks {', '.join(missing)}")
    return content  # type: ignore[no-any-return]
