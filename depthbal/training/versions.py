"""versions.json: what a result was made with."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import depthbal

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "segmentation-models-pytorch",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "scikit-learn",
    "jsonargparse",
)


def collect_versions(seed: int | bool, device: str) -> dict[str, Any]:
    """Return versions, machine, seed and command line, JSON-able.

    Args:
        seed: The training's seed.
        device: Name of the device that trains.

    Example:
        >>> collect_versions(0, "cpu")["depthbal"] == depthbal.__version__
        True
    """
    return {
        "depthbal": depthbal.__version__,
        "python": platform.python_version(),
        **{name: _installed(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "git_commit": _git_commit(),
        "command": shlex.join(sys.argv),
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the package's own checkout, marked where files differ from it."""
    source = Path(depthbal.__file__).parents[1]
    if not (source / ".git").exists():
        return None
    try:
        commit = _git(source, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(source, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
