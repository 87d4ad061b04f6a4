"""Sources of (image, depth) pairs: the one interface between storage and everything else."""

import csv
import hashlib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn

from depthbal.data import images
from depthbal.data.coding import Coding, Intrinsics, decoded, ray_to_z, read_calibration
from depthbal.data.images import Depth as Depth
from depthbal.data.images import Image as Image
from depthbal.data.images import Scale
from depthbal.errors import DataError

Levels = tuple[np.dtype[Any], float]
"""The type of number that depth is stored in, and the metres per unit."""
_NUMBER = re.compile(r"[-+]?\d*\.?\d+")


class PairSource:
    """Indexed access to pairs of an image and its depth map.

    A subclass writes `__len__`, `load` and `fingerprint`; `load_depth` where depth can be had
    without decoding the image. It sets `names` for messages and tables, `groups` where scenes are
    known, which no split cuts, and `levels` where depth is stored in other units than metres.

    Example:
        >>> class Blank(PairSource):
        ...     def __len__(self) -> int:
        ...         return 3
        ...
        ...     def load(self, index: int) -> tuple[Image, Depth]:
        ...         return np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32)
        >>> Blank().load_depth(2).shape, Blank().name(2), Blank().group(2)
        ((4, 6), 'pair 2', '')
    """

    names: Sequence[str] | None = None
    image_paths: Sequence[str] | None = None  # of the images' files, where names say more
    groups: Sequence[str] | None = None
    levels: Levels | None = None
    beyond: bool = False  # whether depth may be inf: only known to lie beyond the range
    none: float = 0.0  # what stands where there is no depth; NaN where 0 is a label

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (H, W, 3) RGB and depth float32 (H, W) in metres.

        0 is no depth, and inf what is only known to lie beyond the range, if `beyond` says so.
        """
        raise NotImplementedError

    def load_depth(self, index: int) -> Depth:
        """Return the depth map alone."""
        return self.load(index)[1]

    def name(self, index: int) -> str:
        """Return what an error message or a result table calls this pair."""
        return f"pair {index}" if self.names is None else str(self.names[index])

    def image_path(self, index: int) -> str:
        """Return the path of the image, by which predictions of other programs are found."""
        return self.name(index) if self.image_paths is None else str(self.image_paths[index])

    def group(self, index: int) -> str:
        """Return the scene, or "" where none is known."""
        return "" if self.groups is None else str(self.groups[index])

    def fingerprint(self) -> str:
        """Return a hex digest that changes when the content does, without reading all of it."""
        raise NotImplementedError


class PairSubset(PairSource):
    """Some pairs of another source, in the order of their positions in it."""

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self.source, self.levels = source, source.levels
        self.beyond, self.none = source.beyond, source.none
        self.indices = [range(len(source))[index] for index in indices]
        self.names = [source.name(index) for index in self.indices]
        self.image_paths = [source.image_path(index) for index in self.indices]
        self.groups = [source.group(index) for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return the pair at this position of the subset."""
        return self.source.load(self.indices[index])

    def load_depth(self, index: int) -> Depth:
        """Return the depth map at this position of the subset."""
        return self.source.load_depth(self.indices[index])

    def fingerprint(self) -> str:
        """Return a digest of the underlying source and of the chosen positions."""
        chosen = np.asarray(self.indices, dtype=np.int64).tobytes()
        return hashlib.sha256(self.source.fingerprint().encode() + chosen).hexdigest()


class FilePairs(PairSource):
    """Image and depth files, and masks where there are any, read when asked for.

    Rows are paths of image, depth, mask of what counts and mask of the sky ("" or nothing for
    none) with forward slashes, relative to `root` or absolute. An image is resized to its depth map
    where both have one aspect, and a depth map is turned with its image. `camera` is that of
    distances along rays, `calibration` the file beside a map of disparities; `scene` finds the
    scene in an image's path, else its folder is it; `turns` has EXIF orientations of folders.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[tuple[str, ...]],
        scale: Scale = None,
        coding: Coding = Coding(),  # noqa: B008 - a tuple
        *,
        sky_labels: Sequence[float] = (),
        camera: Intrinsics | None = None,
        calibration: str | None = None,
        scene: str = "",
        turns: Mapping[str, int] | None = None,
    ) -> None:
        self.root, self.pairs = root, list(pairs)
        self.scale, self.coding, self.sky_labels = scale, coding, tuple(sky_labels)
        self.none = coding.none
        self.camera, self.calibration = camera, calibration
        self.beyond = bool(coding.sky) or any(len(row) > 3 for row in self.pairs)
        self.names = [f"{image} with {depth}" for image, depth, *_ in self.pairs]
        self.image_paths = [image for image, *_ in self.pairs]
        self.groups = [_scene(image, scene) for image in self.image_paths]
        self.codes = [_turn(image, turns or {}) for image in self.image_paths]
        first = root / self.pairs[0][1]
        self.dtype = images.read_raw_depth(first).dtype
        exact = not (coding.inverse or calibration or camera)
        self.unit = 1.0 if calibration else images.metres_per_unit(scale, self.dtype, first)
        self.levels = (self.dtype, self.unit) if exact else None
        self._digest = ""

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image uint8 (H, W, 3) RGB and depth float32 (H, W) in metres."""
        image, depth = images.read_image(self.root / self.pairs[index][0]), self.load_depth(index)
        image = images.turned(image, self.codes[index])
        found = images.fitted(image, depth.shape)
        if found.shape != image.shape:  # a warning is shown once
            rank_zero_warn(f"{self.root}: pictures are resized to depth maps of another size")
        return found, depth

    def load_depth(self, index: int) -> Depth:
        """Return the depth map, float32 (H, W) in metres."""
        image, path, mask, sky = (*self.pairs[index], "", "")[:4]
        depth = self._metres(self.root / path)
        if mask:
            depth = np.where(self._mask(mask, depth), depth, np.float32(self.none))
        if sky:
            labels = self._mask(sky, depth)
            found = np.isin(labels, self.sky_labels) if self.sky_labels else labels != 0
            depth = np.where(found, np.float32(np.inf), depth)
        return images.turned(self._upright(depth, self.root / image), self.codes[index])

    def _metres(self, path: Path) -> Depth:
        """Return a file's depth in metres as it is stored."""
        raw = images.read_raw_depth(path)
        one_scale = isinstance(self.scale, float) or raw.dtype == np.uint8
        if raw.dtype != self.dtype and one_scale:
            raise DataError(
                f"{path} is stored as {raw.dtype}, {self.pairs[0][1]} as {self.dtype}: one scale "
                "cannot hold for both; convert them, or leave them out by a pattern or a list"
            )
        coding = self.coding
        if nodata := images.nodata_of(path):
            coding = coding._replace(invalid=(*coding.invalid, *nodata))
        if self.calibration:
            scale, offset = read_calibration(path.parent / self.calibration)
            coding = coding._replace(inverse=True, offset=offset)
        else:
            scale = images.metres_per_unit(self.scale, raw.dtype, path)
        depth = decoded(raw, scale, coding)
        return depth * ray_to_z(depth.shape, self.camera) if self.camera else depth

    def _mask(self, path: str, depth: Depth) -> NDArray[Any]:
        found = images.read_raw_depth(self.root / path)
        if found.shape != depth.shape:
            raise DataError(
                f"{self.root / path} is {found.shape}, its depth map {depth.shape}; give masks of "
                "its size"
            )
        return found

    def _upright(self, depth: Depth, image: Path) -> Depth:
        """Turn a depth map as its image's EXIF tag says."""
        if (code := images.orientation(image)) == 1:
            return depth
        if code > 4:  # of a picture that lies on its side, the depth map may have been set upright
            height, width = images.read_image(image).shape[:2]
            if height != width and (height > width) == (depth.shape[0] > depth.shape[1]):
                return depth
        rank_zero_warn(f"{self.root}: depth maps are turned with their pictures, by their EXIF tag")
        return images.turned(depth, code)

    def fingerprint(self) -> str:
        """Return a digest of all names, sizes and modification times, and of the reading."""
        if not self._digest:
            paths = filter(None, chain(*self.pairs))
            reading = repr(
                (self.scale, self.coding, self.sky_labels, self.camera, self.calibration)
            )
            self._digest = files_digest(self.root, paths, reading)
        return self._digest


def _scene(image: str, scene: str) -> str:
    """Return the scene that an image's path names, else its folder."""
    found = re.search(scene, image) if scene else None
    return found[0] if found else posixpath.dirname(image) or "."


def _turn(image: str, turns: Mapping[str, int]) -> int:
    """Return the orientation of the images in a folder."""
    return next((turns[part] for part in image.split("/") if part in turns), 1)


def normal(name: str) -> str:
    """Return a name in the one form that names are compared in: a Mac decomposes letters."""
    return unicodedata.normalize("NFC", name)


def natural(name: str) -> list[int | str]:
    """Return what sorts names with their numbers as numbers: frame 9 before frame 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def on_disk(root: Path, paths: Iterable[str]) -> dict[str, str | None]:
    """Return every path as the disk spells it, None where it is not; folders are listed once.

    Paths are relative to `root` or absolute, and may have Windows' slashes.
    """

    @cache
    def names(folder: str) -> dict[str, str]:
        with suppress(OSError):
            listed = os.listdir(root / folder)
            return {normal(name): posixpath.join(folder, name) for name in listed}
        above, name = posixpath.split(folder)
        other = names(above).get(normal(name), folder) if name else folder
        return {} if other == folder else names(other)

    places = {path: posixpath.split(path.replace("\\", "/")) for path in paths}
    return {path: names(folder).get(normal(name)) for path, (folder, name) in places.items()}


def read_list(
    path: Path, root: Path, prefix: str = "", places: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Return the rows of a list, image path and depth path, relative to a folder or absolute.

    What is not in the folder itself is looked for in `places` inside it.
    Columns are separated by commas, semicolons, tabs or blanks. Numbers (focal lengths, times),
    further columns, comments, a header and rows with "None" for depth are passed over, as is a
    `prefix` of paths. Errors count rows as an editor does.
    """
    rows: dict[int, list[str]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        comma = next((mark for mark in ",;\t" if mark in text), " ")
        for entries in (reader := csv.reader(text.splitlines(), delimiter=comma)):
            row = [entry.strip().replace("\\", "/") for entry in entries if entry.strip()]
            row = [posixpath.normpath(name) for name in row if not _NUMBER.fullmatch(name)]
            if any("." in name for name in row) and "None" not in row and row[0][0] != "#":
                # published lists begin the paths inside their folder with a slash
                row = [one[1:] if one[0] == "/" and not Path(one).exists() else one for one in row]
                rows[reader.line_num] = [name.removeprefix(prefix) for name in row[:2]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path.absolute()}: not a readable list of pairs in UTF-8 ({error})"
        ) from error
    if not rows:
        raise DataError(f"{path}: the list is empty; expected rows 'image path,depth path'")
    if wrong := [number for number, row in rows.items() if len(row) != 2]:
        raise DataError(f"{path}, row {wrong[0]}: expected 2 columns (image path,depth path)")
    found = on_disk(root, chain(*rows.values()))
    for place in places:
        inside = {f"{place}/{entry}": entry for entry, there in found.items() if there is None}
        found |= {inside[at]: there for at, there in on_disk(root, inside).items()}
    if missing := [entry for entry, there in found.items() if there is None]:
        numbers = {entry: number for number, row in rows.items() for entry in row}
        first = ", ".join(f"row {numbers[entry]}: {entry}" for entry in missing[:3])
        raise DataError(
            f"{path}: {len(missing)} of {2 * len(rows)} files do not exist in {root} "
            f"({first}{', ...' * (len(missing) > 3)}); complete the download or remove the "
            "rows"
        )
    return [tuple(str(found[entry]) for entry in row) for row in rows.values()]


def files_digest(root: Path, paths: Iterable[str], reading: str) -> str:
    """Return a digest of names, sizes and times of files under `root`, and of how they are read."""

    @cache
    def states(folder: str) -> dict[str, str]:
        found = {}
        with os.scandir(root / folder) as entries:
            for entry in entries:
                with suppress(OSError):  # a link to nothing: reading it will say so
                    status = entry.stat()
                    found[entry.name] = f"{status.st_size}:{status.st_mtime_ns}"
        return found

    digest = hashlib.sha256(reading.encode())
    for path in paths:
        folder, name = posixpath.split(path)
        digest.update(f"{path}:{states(folder).get(name, 'missing')}\n".encode())
    return digest.hexdigest()
