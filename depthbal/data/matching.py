"""Finding the depth file that belongs to every image file."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from depthbal.errors import DataError

_CONTENT = {"rgb": "images", "depth": "depth files"}
_LISTED = 8  # folders that a message names
_WILDCARD = re.compile(r"\*\*/|\*|\?")


def match_pairs(
    root: Path, rgb: str, depth: str, rgb_suffixes: Sequence[str], depth_suffixes: Sequence[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Pair the files of two folders or patterns by what distinguishes them.

    A folder is searched with its subfolders, and two files belong together when their paths inside
    their folders agree apart from the suffix. With patterns they belong together when the parts
    that the wildcards stand for agree: ``*_colors.png`` and ``*_depth.png`` by the number in front.

    Args:
        root: the folder that `rgb` and `depth` are relative to.
        rgb: folder or pattern (``*``, ``?``, ``**/``) of the images.
        depth: folder or pattern of the depth files.
        rgb_suffixes: file name endings that count as images in a folder.
        depth_suffixes: file name endings that count as depth in a folder.

    Returns:
        (image path, depth path) sorted by what they share, and the paths without a partner.

    Raises:
        DataError: a folder is missing, nothing matches, or two files claim the same partner.
    """
    images = _keyed(root, "rgb", rgb, rgb_suffixes)
    depths = _keyed(root, "depth", depth, depth_suffixes)
    shared = sorted(images.keys() & depths.keys())
    if not shared:
        raise DataError(
            f"{root}: {len(images)} images in {rgb!r} and {len(depths)} depth files in {depth!r}, "
            f"but no name in common (for example {_example(images)} and {_example(depths)}); "
            "give both the same stem, or patterns such as --data.rgb '*_colors.png' --data.depth "
            "'*_depth.png'"
        )
    single = [images[key] for key in sorted(images.keys() - depths.keys())]
    single += [depths[key] for key in sorted(depths.keys() - images.keys())]
    return [(images[key], depths[key]) for key in shared], single


def is_pattern(text: str) -> bool:
    """Return whether a setting is a pattern rather than a folder.

    Example:
        >>> is_pattern("rgb"), is_pattern("scenes/**/*_rgb.png")
        (False, True)
    """
    return any(character in text for character in "*?")


def require_folder(root: Path, option: str, where: str) -> str:
    """Return the folder inside `root` that is searched for a folder or pattern.

    Args:
        root: the folder that `where` is relative to.
        option: ``"rgb"`` or ``"depth"``, for the message.
        where: folder or pattern.

    Raises:
        DataError: there is no such folder; names those that there are.
    """
    where = where.strip("/")
    start = _fixed_folder(where) if is_pattern(where) else where
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


def _keyed(root: Path, option: str, where: str, suffixes: Sequence[str]) -> dict[str, str]:
    start = require_folder(root, option, where)
    where = where.strip("/")
    if is_pattern(where):
        pattern = _regex(where)
    else:
        endings = "|".join(re.escape(suffix) for suffix in suffixes)
        pattern = re.compile(rf"{re.escape(where)}/(.+)(?i:{endings})")
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


def _regex(pattern: str) -> re.Pattern[str]:
    """Translate a pattern so that every wildcard is a group: what it stands for is the key."""
    meanings = {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}
    text, last = "", 0
    for wildcard in _WILDCARD.finditer(pattern):
        text += re.escape(pattern[last : wildcard.start()]) + meanings[wildcard.group()]
        last = wildcard.end()
    rest = pattern[last:]
    # a pattern that ends in "*" leaves the suffix open, and it must not be part of the key
    open_end = rest == "" and pattern.endswith("*")
    return re.compile(text + (r"(?:\.[^./]+)" if open_end else re.escape(rest)))


def _fixed_folder(pattern: str) -> str:
    fixed = pattern[: min(pattern.find(mark) for mark in "*?" if mark in pattern)]
    return fixed.rpartition("/")[0]


def _walk(root: Path, start: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root / start, followlinks=True):
        folders.sort()
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        for name in sorted(names):
            if not name.startswith("."):
                yield prefix + name


def _example(files: dict[str, str]) -> str:
    return min(files.values())
