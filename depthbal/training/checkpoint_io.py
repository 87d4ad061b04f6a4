"""Checkpoints on disk are either complete or the previous ones."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from depthbal.errors import CheckpointError
from depthbal.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint next to its target and rename it; read with ``weights_only=True``.

    Lightning's own writer goes through the system's temporary folder; where that is another disk,
    its last step is a copy that a full disk or a kill leaves half done over the previous file.

    Raises:
        CheckpointError: The disk is full, or the file to load is truncated or holds something
            other than tensors and plain types.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write ``checkpoint`` to ``path``; on any error the previous file stays untouched."""
        target = Path(path)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch turns some system errors into its own
            raise CheckpointError(
                f"cannot write {target} ({_first_line(error)}); the previous checkpoint is "
                "untouched: free disk space and continue the run with --resume"
            ) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Load tensors and plain types only; nothing in a checkpoint is executed."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # torch raises a different class for every kind of damage
            raise CheckpointError(
                f"{path} cannot be read ({_first_line(error)}); "
                "it is truncated or not a checkpoint of depthbal"
            ) from error
        return checkpoint


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
