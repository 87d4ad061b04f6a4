"""Small JSON files that are either complete or absent."""

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from depthbal.io import write_json


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


def read_stored(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; another one is described by its type."""
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    return content if isinstance(content, dict) else {"kind": type(content).__name__}
