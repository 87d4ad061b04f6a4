"""Reading NumPy files whose keys and shapes are known."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.errors import DataError

Shape = tuple[int | str, ...]
"""A size, or a name for a size that all arrays of a file share ("V")."""


def read_arrays(path: str | Path, shapes: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
    """Return the named arrays of an .npz file after checking that they are what they should be.

    Args:
        path: the file; objects in it (pickles) are not opened.
        shapes: the expected shape of each key; a string stands for any size, the same throughout.

    Raises:
        DataError: no such file, unreadable, or a key is missing or of another shape (names both).
    """
    arrays = load_arrays(path, shapes)
    check_shapes(path, arrays, shapes)
    return arrays


def load_arrays(path: str | Path, keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return those of the named arrays that an .npz file holds, whatever their form.

    Raises:
        DataError: no such file, or it or one of the arrays is unreadable (names the key).
    """
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}; expected an .npz file")
    reading = "as an .npz file"
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            for key in keys:
                if key in content.files:
                    reading = f"with the key {key!r}"
                    arrays[key] = content[key]
    except Exception as error:  # damage shows as one of many types
        raise DataError(f"cannot read {path} {reading}: {error}; fetch it again") from error
    return arrays


def read_array(path: str | Path, mapped: bool = False) -> NDArray[Any]:
    """Return the array of an .npy file.

    Args:
        path: the file; objects in it (pickles) are not opened.
        mapped: read what is asked for only, when it is asked for.

    Raises:
        DataError: no such file, or unreadable.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; expected an .npy file") from error
    except Exception as error:  # damage shows as one of many types
        raise DataError(
            f"cannot read {path} as an .npy file: {error}; fetch it again, or delete it if a "
            "training wrote it"
        ) from error
    return array


def check_shapes(
    path: str | Path, arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shape]
) -> None:
    """Raise an error that names the file and the key unless all arrays have their shapes.

    Raises:
        DataError: a key is missing, of another shape, or holds no finite numbers.
    """
    sizes: dict[str, int] = {}
    for key, shape in shapes.items():
        if key not in arrays:
            raise DataError(f"{path} lacks the key {key!r}; expected {', '.join(shapes)}")
        array = arrays[key]
        if array.ndim == len(shape):
            for name, size in zip(shape, array.shape, strict=True):
                if isinstance(name, str):
                    sizes.setdefault(name, size)
        wanted = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)
        if array.shape != wanted:
            raise DataError(
                f"{path}: {key!r} has shape {array.shape}, expected "
                f"({', '.join(str(size) for size in wanted)})"
            )
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise DataError(f"{path}: {key!r} (type {array.dtype}) must hold finite numbers")


def check_radians(path: str | Path, key: str, pose: NDArray[Any]) -> None:
    """Raise an error where poses (N, 72) look like degrees: half of them hold a number beyond 2 pi.

    A single fit may have run away; half of the people turned by more than a whole turn are not.

    Raises:
        DataError: they do; names the file and the key.
    """
    if len(pose) and np.median(np.abs(pose).max(axis=1)) > 2 * np.pi:
        raise DataError(
            f"{path}: {key!r} goes up to {np.abs(pose).max():.4g}, beyond 2 pi in half of the "
            "rows; expected axis-angle in radians, this looks like degrees"
        )
