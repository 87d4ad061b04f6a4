"""Reading NumPy files whose keys and shapes are known."""

from collections.abc import Mapping
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
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected an .npz with {', '.join(shapes)}")
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in shapes if key in content.files}
    except Exception as error:  # damage shows as one of many types
        raise DataError(f"cannot read {path} as an .npz file: {error}") from error
    check_shapes(path, arrays, shapes)
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
