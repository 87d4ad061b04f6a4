"""versions.json: what a result was made with, in every session from the first to the last."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import depthbal

EARLIER = "earlier_sessions"
TOTAL = "total_duration_s"

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


def earlier_sessions(previous: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sessions of a run that is resumed, the first one first.

    Args:
        previous: The versions.json that the last session wrote; one that was cut off has no
            ``duration_s``.

    Example:
        >>> earlier_sessions({"seed": 0, "earlier_sessions": [{"seed": 0, "duration_s": 60.0}]})
        [{'seed': 0, 'duration_s': 60.0}, {'seed': 0}]
    """
    last = {key: previous[key] for key in previous if key not in (EARLIER, TOTAL)}
    return [*previous.get(EARLIER, []), last]


def with_duration(versions: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the content of versions.json at the end of a session.

    Args:
        versions: The content at its start.
        seconds: What this session took; the total adds those of the earlier ones that ended.

    Example:
        >>> with_duration({"earlier_sessions": [{"duration_s": 60.0}, {}]}, 5.0)["total_duration_s"]
        65.0
    """
    earlier = sum(session.get("duration_s", 0.0) for session in versions.get(EARLIER, []))
    own = round(seconds, 1)
    return {**versions, "duration_s": own, TOTAL: round(earlier + own, 1)}


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
