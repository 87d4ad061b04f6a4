"""Files that are either complete or absent; nothing of a user's is replaced unasked."""

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

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


def read_stored(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; another one is described by its type."""
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    return content if isinstance(content, dict) else {"kind": type(content).__name__}


class Stored(ABC):
    """Something that saves itself as one JSON file, which names the class under ``"kind"``."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""

    @classmethod
    @abstractmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return what ``to_dict`` described."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON; missing folders are made, and a killed run leaves no half file.

        Raises:
            ValueError: A value is NaN or infinite.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` wrote.

        Raises:
            ValueError: There is no such file, or it holds something else.
        """
        return cls.restored(read_stored(path), path)

    @classmethod
    def restored(cls, content: dict[str, Any], path: str | os.PathLike[str]) -> Self:
        """Return what a file describes; a ValueError names it where it describes something else."""
        try:
            if content.get("kind") != (kind := cls.__name__):
                raise ValueError(f"its kind is {content.get('kind')!r}")
            return cls.from_dict(content)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"expected a {kind} in {path}, as {kind}.save writes it: {reason}"
            ) from error


def show_progress() -> bool:
    """Whether a moving progress bar makes sense: not in a log file."""
    return sys.stderr.isatty() and sys.stdout.isatty()
