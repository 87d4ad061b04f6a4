"""The user's cache directory: it holds what can be made again, and may be deleted at any time."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

from platformdirs import user_cache_path

from depthbal.io import replacing

Kept = TypeVar("Kept")


def cache_file(*parts: str) -> Path:
    """Return the place of a file in the cache; named by all that it depends on."""
    return user_cache_path("depthbal").joinpath(*parts)


def cached(
    file: Path,
    load: Callable[[Path], Kept],
    make: Callable[[], Kept],
    save: Callable[[Path, Kept], Any],
) -> Kept:
    """Return what a file holds; where it is missing or damaged, make it and keep it if possible."""
    with suppress(OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return load(file)
    made = make()
    with suppress(OSError), replacing(file) as temporary:
        save(temporary, made)
    return made
