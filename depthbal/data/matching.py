"""Finding the depth file that belongs to every image file."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from depthbal.errors import DataError

_CONTENT = {"rgb": "images", "depth": "depth files"}
_LISTED = 8  # folders that a message names
_WILDCARDS = {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}


def match_pairs(
    root: Path, rgb: str, depth: str, rgb_suffixes: Sequence[str], depth_suffixes: Sequence[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Pair the files of two folders or patterns by what distinguishes them.

    A folder is searched with its subfolders, and two files belong together when their paths inside
    their folders agree apart from the suffix. With patterns (``*``, ``?``, ``**/``) they belong
    together when the parts that the wildcards stand for agree: ``*_colors.png`` and
    ``*_depth.png`` by the number in front.

    Returns:
        (image path, depth path) relative to `root`, sorted by what they share, and the paths
        without a partner.
    """
    images = _keyed(root, "rgb", rgb, rgb_suffixes)
    depths = _keyed(root, "depth", depth, depth_suffixes)
    shared = sorted(images.keys() & depths.keys())
    if not shared:
        raise DataError(
            f"{root}: {len(images)} images in {rgb!r} and {len(depths)} depth files in {depth!r}, "
            f"but no name in common (for example {min(images.values())} and "
            f"{min(depths.values())}); give both the same stem, or patterns such as "
            "--data.rgb '*_colors.png' --data.depth '*_depth.png'"
        )
    single = [images[key] for key in sorted(images.keys() - depths.keys())]
    single += [depths[key] for key in sorted(depths.keys() - images.keys())]
    return [(images[key], depths[key]) for key in shared], single


def require_folder(root: Path, option: str, where: str) -> str:
    """Return the folder inside `root` that is searched for a folder or pattern `where`."""
    start = where.strip("/")
    if _is_pattern(where):  # the folders before the first wildcard
        start = re.split(r"[*?]", start)[0].rpartition("/")[0]
    if (root / start).is_dir():
        return start
    if not root.is_dir():
        raise DataError(f"{root.absolute()} is not a folder; expected one with images and depth")
    folders = sorted(path.name for path in root.glob("[!.]*") if path.is_dir())
    raise DataError(
        f"{root / start} is not a folder: {option} is {where!r}, and the folders in "
        f"{root.absolute()} are {', '.join(folders[:_LISTED]) or 'none'}"
        f"{' and more' * (len(folders) > _LISTED)}; give --data.{option} the folder of the "
        f"{_CONTENT[option]}, or a pattern such as '**/*_{option}.png'"
    )


def _is_pattern(where: str) -> bool:
    return "*" in where or "?" in where


def _keyed(root: Path, option: str, where: str, suffixes: Sequence[str]) -> dict[str, str]:
    """Return the files of a folder or pattern by what their wildcards stand for."""
    start = require_folder(root, option, where)
    pattern = _regex(where.strip("/"), suffixes)
    files: dict[str, str] = {}
    for path in _walk(root, start):
        match = pattern.fullmatch(path)
        if match is None:
            continue
        key = "\0".join(part or "" for part in match.groups())
        if key in files:
            raise DataError(f"{root}: {files[key]} and {path} have the same stem; remove one")
        files[key] = path
    if not files:
        raise DataError(
            f"{root}: no file matches {where!r} (endings: {', '.join(suffixes)}); give "
            f"--data.{option} the folder or the pattern of the {_CONTENT[option]}"
        )
    return files


def _regex(where: str, suffixes: Sequence[str]) -> re.Pattern[str]:
    """Translate so that every wildcard is a group: what the groups match is the key."""
    if not _is_pattern(where):
        endings = "|".join(re.escape(suffix) for suffix in suffixes)
        return re.compile(rf"{re.escape(where)}/(.+)(?i:{endings})")
    parts = re.split(r"(\*\*/|\*|\?)", where)
    text = "".join(_WILDCARDS.get(part, re.escape(part)) for part in parts)
    # a pattern that ends in "*" leaves the suffix open, and it must not be part of the key
    return re.compile(text + r"(?:\.[^./]+)" * where.endswith("*"))


def _walk(root: Path, start: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root / start, followlinks=True):
        folders.sort()
        inside = Path(folder).relative_to(root)
        yield from ((inside / name).as_posix() for name in sorted(names) if name[0] != ".")
