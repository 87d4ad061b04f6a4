"""Small JSON files that are either complete or absent."""

import json
import os
from pathlib import Path
from typing import Any

from depthbal.files import replacing


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as JSON through a temporary file, so that a killed run leaves no half file.

    Args:
        path: Target file; missing folders are made.
        content: Anything JSON can hold; NaN and infinity are refused.

    Raises:
        ValueError: ``content`` holds NaN or infinity.
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json_kind(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read a JSON object that says ``"kind": kind``.

    Raises:
        ValueError: The file is not JSON, or holds something else than ``kind``.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {kind} file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a JSON file ({error}); write it with {kind}.save"
        ) from error
    found = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if found != kind:
        raise ValueError(f"expected a {kind} in {path}, found {found!r}; write it with {kind}.save")
    return content
