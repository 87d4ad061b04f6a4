"""The labelled NYU Depth V2 in its original form: one MATLAB 7.3 file, which is HDF5.

``images`` (N, 3, W, H) uint8 and ``depths`` (N, W, H) in metres are both transposed, as MATLAB
stores columns first; ``scenes`` (1, N) refers to one string of character codes per picture. The
official split lies in another file, ``splits.mat``: ``trainNdxs`` and ``testNdxs``, counted from 1.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from depthbal.data.headers import Size
from depthbal.data.packed.stored_depth import StoredDepth, store_depth
from depthbal.data.pairs import Image
from depthbal.errors import DataError


class LabelledMat:
    """Some pictures of a ``nyu_depth_v2_labeled.mat``.

    Args:
        path: the file.
        rows: which pictures, counted from 0.
        scenes: the scene of every picture of the file, from `read_scenes`.
        step: metres per level that the depth, stored as floating-point numbers, is rounded to.

    Raises:
        DataError: the file is missing or does not hold what is expected.
    """

    def __init__(self, path: Path, rows: NDArray[np.int64], scenes: list[str], step: float) -> None:
        self.path = path
        self.rows = rows
        self.scenes = scenes
        self.step = step
        self._file = open_mat(path)

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, index: int) -> Size:
        """Return (height, width), equal for all pictures."""
        _, width, height = self._file["depths"].shape
        return int(height), int(width)

    def image(self, index: int) -> Image:
        """Return the image, turned to (H, W, 3)."""
        stored = self._read("images", index)
        return np.ascontiguousarray(stored.transpose(2, 1, 0))

    def depth(self, index: int) -> StoredDepth:
        """Return the filled-in depth, turned to (H, W), rounded to steps."""
        metres = np.ascontiguousarray(self._read("depths", index).T)
        return store_depth(metres, 1.0, (0,), self.name(index), self.step)

    def name(self, index: int) -> str:
        """Return the picture's number in the file, counted from 1 as in the official split."""
        return f"{self.path.name} picture {int(self.rows[index]) + 1}"

    def group(self, index: int) -> str:
        """Return the scene."""
        return self.scenes[int(self.rows[index])]

    def fingerprint(self) -> str:
        """Return a digest of the file's size and modification time and of the chosen pictures."""
        status = self.path.stat()
        state = [status.st_size, status.st_mtime_ns, self.rows.tolist()]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def _read(self, name: str, index: int) -> NDArray[Any]:
        try:
            stored: NDArray[Any] = self._file[name][self.rows[index]]
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.name(index)}: {name} cannot be read ({error})") from error
        return stored


def open_mat(path: Path) -> Any:
    """Open a labelled set and check the layout of its images and depth.

    Raises:
        DataError: naming the file, what was expected and what came.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not a readable MATLAB 7.3 file ({error}); fetch it again"
        ) from error
    shapes = [getattr(file.get(name), "shape", None) for name in ("images", "depths")]
    images, depths = shapes
    if not (
        images is not None
        and depths is not None
        and len(images) == 4
        and images[1] == 3
        and depths == (images[0], *images[2:])
        and file["images"].dtype == np.uint8
        and file["depths"].dtype.kind == "f"
    ):
        file.close()
        raise DataError(
            f"{path}: expected images uint8 (N, 3, W, H) and depths (N, W, H) of floating-point "
            f"numbers, got {images} and {depths}; give nyu_depth_v2_labeled.mat"
        )
    return file


def read_scenes(path: Path) -> list[str]:
    """Return the scene of every picture; empty strings where the file names none."""
    with open_mat(path) as file:
        count = len(file["images"])
        if "scenes" not in file:
            return [""] * count
        try:
            references = file["scenes"][()].ravel()
            scenes = ["".join(map(chr, file[one][()].ravel())) for one in references]
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}: scenes are not references to strings ({error}); fetch it again"
            ) from error
    if len(scenes) != count:
        raise DataError(f"{path}: {len(scenes)} scenes for {count} images; fetch it again")
    return scenes


def read_official_split(path: Path, count: int) -> dict[str, NDArray[np.int64]]:
    """Return the rows (from 0) of the official training and test pictures in ``splits.mat``.

    Raises:
        DataError: no MATLAB file, indices outside the set, or in both splits.
    """
    rows = {
        split: np.asarray(indices, dtype=np.int64).ravel() - 1
        for split, indices in zip(("train", "test"), _read_indices(path), strict=True)
    }
    chosen = np.concatenate(list(rows.values()))
    if any(len(part) == 0 for part in rows.values()) or chosen.min() < 0 or chosen.max() >= count:
        raise DataError(f"{path}: expected indices from 1 to {count} in both splits")
    if len(np.unique(chosen)) != len(chosen):
        raise DataError(f"{path}: some pictures are listed twice or in both splits")
    return rows


def _read_indices(path: Path) -> list[Any]:
    names = ("trainNdxs", "testNdxs")
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the official splits.mat, or no --splits")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            content = {name: file[name][()] for name in names if name in file}
    else:
        from scipy.io import loadmat  # comes with scikit-learn

        try:
            content = loadmat(path)
        except Exception as error:  # scipy names no common error
            raise DataError(f"{path}: not a readable MATLAB file ({error})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; give the official splits.mat")
    return [content[name] for name in names]
