"""Files that are either complete or absent; nothing of a user's is replaced unasked."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from depthbal.errors import RunFolderError


def require_free(path: Path, overwrite: bool) -> None:
    """Refuse an ``--out`` where a folder is, or a file that is not to be replaced."""
    if path.is_dir():
        raise RunFolderError(f"{path} is a folder; give --out the name of a file")
    if path.exists() and not overwrite:
        raise RunFolderError(f"{path} exists; choose another name with --out, or give --overwrite")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends well.

    On any error or interruption ``path`` stays as it was. Missing folders are made. The suffix
    stays the same, because writers such as OpenCV and NumPy go by it; the process's number keeps
    processes that write the same file apart.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as JSON, complete or not at all; NaN and infinity are a ValueError."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def show_progress() -> bool:
    """Whether a moving progress bar makes sense: not in a log file."""
    return sys.stderr.isatty() and sys.stdout.isatty()
