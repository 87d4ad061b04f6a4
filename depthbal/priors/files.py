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
        kind = cls.__name__
        content = read_stored(path, kind)
        if content.get("kind") != kind:
            found = content.get("kind")
            raise ValueError(
                f"expected a {kind} in {path}, found {found!r}; write it with {kind}.save"
            )
        try:
            return cls.from_dict(content)
        except KeyError as error:
            raise ValueError(f"the {kind} in {path} lacks {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"the {kind} in {path} is not valid: {error}") from error


def read_stored(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {kind} file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file ({error}); expected a saved {kind}") from error
    return content if isinstance(content, dict) else {"kind": type(content).__name__}
