"""Depth maps that another program predicted, read from files and matched to the test images."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from depthbal.data.images import DEPTH_SUFFIXES, as_scale, read_depth
from depthbal.data.pairs import normal
from depthbal.errors import DataError

Kind = Literal["depth", "inverse"]


class PredictionFolder:
    """The predictions of a folder, one file for each image.

    A file belongs to an image when their paths agree without suffix, or one is the end of the
    other: ``kitchen/0001.npy`` or ``0001.npy`` to ``rgb/kitchen/0001.jpg``. Files that are named
    otherwise are found by a pattern.

    Args:
        root: the folder, searched with its subfolders.
        names: of the images, as paths; suffixes do not matter.
        scale: metres per unit of the files (with inverse depth 1/metres), also as a fraction such
            as 1/256; None: 1 for floating point, 0.001 for 16 bit, an error for 8 bit.
        pattern: of a file's path without suffix, "{stem}" for the last part of the image's path
            without suffix and "{path}" for all of it, such as "{stem}_pred".
        allow_missing: leave out images without a file, which are then in `missing`.

    Raises:
        DataError: images without a file, files that cannot be told apart.

    Attributes:
        files: path of every image's file, None where there is none.
        missing: names of images without a file.
    """

    def __init__(
        self,
        root: str | Path,
        names: Sequence[str],
        scale: float | str | None = None,
        pattern: str | None = None,
        allow_missing: bool = False,
    ) -> None:
        self.root, self.scale = Path(root).expanduser(), as_scale(scale)
        if not self.root.is_dir():
            raise DataError(f"{self.root.absolute()} is not a folder; expected one of predictions")
        found: dict[str, list[Path]] = {}  # by path
        ending: dict[str, list[Path]] = {}  # by every end of it
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in DEPTH_SUFFIXES:
                key = normal(path.relative_to(self.root).with_suffix("").as_posix())
                found.setdefault(key, []).append(path)
                for tail in _tails(key)[1:]:  # of images whose path is the end of this one
                    ending.setdefault(tail, []).append(path)
        if not found:
            raise DataError(
                f"{self.root} holds no predictions; expected {', '.join(DEPTH_SUFFIXES)}"
            )
        chosen = [_match(name, found, ending, pattern) for name in names]
        for name, paths in zip(names, chosen, strict=True):
            if len(paths) > 1:
                shown = " and ".join(str(path.relative_to(self.root)) for path in paths[:2])
                raise DataError(f"{self.root}: {shown} are both for {name}; remove one")
        self.files = [paths[0] if paths else None for paths in chosen]
        self.missing = [name for name, file in zip(names, self.files, strict=True) if not file]
        used: dict[Path, str] = {}
        for name, file in zip(names, self.files, strict=True):
            if file in used:
                raise DataError(
                    f"{file} would be the prediction for {used[file]} and {name}; keep the images' "
                    "folders, or give --predictions.pattern with {path}"
                )
            if file:
                used[file] = name
        if self.missing and not (allow_missing and used):
            raise DataError(
                f"{len(self.missing)} of {len(names)} images have no prediction in {self.root}, "
                f"among them {', '.join(self.missing[:3])} (a file there: "
                f"{min(found)}); give --predictions.pattern if the files are named otherwise"
                + ("" if allow_missing else ", or --allow-missing to score the rest")
            )

    def __call__(self, index: int) -> NDArray[np.float32]:
        """Return the prediction for an image, (h, w) float32 in metres, or 1/metres if inverse.

        Raises:
            DataError: the file is damaged or holds no map.
        """
        path = self.files[index]
        assert path is not None, "an image without prediction"
        return read_depth(path, self.scale)


def _match(
    name: str,
    found: dict[str, list[Path]],
    ending: dict[str, list[Path]],
    pattern: str | None,
) -> list[Path]:
    """Return the files of an image: of its path, of the longest tail of it, or that end with it."""
    path = PurePosixPath(normal(name)).with_suffix("")
    whole = path.as_posix().lstrip("/")
    if pattern is not None:
        return found.get(pattern.format(stem=path.name, path=whole), [])
    for tail in _tails(whole):
        if paths := found.get(tail):
            return paths
    return ending.get(whole, [])


def _tails(path: str) -> list[str]:
    """Return a path and what is left of it without its first folders."""
    parts = path.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]
