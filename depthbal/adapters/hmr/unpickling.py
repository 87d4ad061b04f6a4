"""The arrays in a published SMPL pickle, without chumpy, SciPy or running code from the file."""

import copyreg
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.errors import DataError

Array = NDArray[Any]


class _Kept:
    """Stands in for anything a file names: keeps what it is built from and does nothing with it."""

    parts: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _New(_Kept):
    """What the oldest pickle formats make an object with, copy_reg._reconstructor."""

    def __new__(cls, kind: type[_Kept], *_: Any) -> Any:
        return kind()


class _Dense(_Kept):
    """An array as NumPy rebuilds it from a type, a shape and bytes."""

    def array(self) -> Array:
        _, shape, kind, by_column, data = self.state
        return _from_bytes(data, kind, shape, "F" if by_column else "C")


class _Buffer(_Kept):
    """An array as NumPy rebuilds it from the fifth pickle format."""

    def array(self) -> Array:
        return _from_bytes(*self.parts)


class _Rows(_Kept):
    """A sparse matrix by rows."""

    def array(self) -> Array:
        ends = _array(self.state["indptr"])
        own = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        return self._filled(own, _array(self.state["indices"]))

    def _filled(self, row: Array, column: Array) -> Array:
        if min(row.min(initial=0), column.min(initial=0)) < 0:  # would count from the end
            raise ValueError("negative indices")
        dense = np.zeros(self.state["_shape"])
        np.add.at(dense, (row, column), _array(self.state["data"]))
        return dense


class _Columns(_Rows):
    """A sparse matrix by columns."""

    def _filled(self, row: Array, column: Array) -> Array:
        return super()._filled(column, row)


class _Entries(_Rows):
    """A sparse matrix as a list of entries."""

    def array(self) -> Array:
        row, column = self.state.get("coords") or (self.state["row"], self.state["col"])
        return self._filled(_array(row), _array(column))


class _Chumpy(_Kept):
    """chumpy's array."""

    def array(self) -> Array:
        return _array(self.state["x"])


class _Select(_Kept):
    """Some of an array's entries, as chumpy keeps a slice."""

    def array(self) -> Array:
        chosen = _array(self.state["a"]).ravel()[_array(self.state["idxs"])]
        return chosen.reshape(self.state.get("preferred_shape", chosen.shape))


class _Reshape(_Kept):
    """An array in another shape, as chumpy keeps it."""

    def array(self) -> Array:
        return _array(self.state["a"]).reshape(self.state["newshape"])


_SPARSE = {"csc": _Columns, "csr": _Rows, "coo": _Entries}
_STAND_INS: dict[str, type[_Kept]] = {
    "numpy.ndarray": _Kept,
    "numpy.dtype": _Kept,
    "_codecs.encode": _Kept,
    "chumpy.ch.Ch": _Chumpy,
    "chumpy.reordering.Select": _Select,
    "chumpy.reordering.Reshape": _Reshape,
    # each pair: the names of Python 2, NumPy 1 and old SciPy, and those of today
    **{
        f"{room}.{name}": _Kept
        for room in ("__builtin__", "builtins")
        for name in ("object", "set")
    },
    **{f"{room}._reconstructor": _New for room in ("copy_reg", "copyreg")},
    **{f"numpy.{room}.multiarray._reconstruct": _Dense for room in ("core", "_core")},
    **{f"numpy.{room}.multiarray.scalar": _Kept for room in ("core", "_core")},
    **{f"numpy.{room}.numeric._frombuffer": _Buffer for room in ("core", "_core")},
    **{
        f"scipy.sparse.{prefix}{layout}.{layout}_{form}": kind
        for layout, kind in _SPARSE.items()
        for prefix in ("", "_")
        for form in ("matrix", "array")
    },
}


class _Reader(pickle.Unpickler):
    """Builds stand-ins only, whatever the file asks for."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> type[_Kept]:
        kind = _STAND_INS.get(f"{module}.{name}")
        if kind is None:
            raise DataError(
                f"{self.path} asks for {module}.{name}; only arrays of NumPy, scipy.sparse and "
                "chumpy are read from a pickle, because anything else could run code"
            )
        return kind


def read_pickled_arrays(path: str | Path, keys: Iterable[str]) -> dict[str, Array]:
    """Return those of the named arrays that a pickled dictionary holds, running no code from it.

    Everything in the file becomes an inert stand-in, from which arrays are made of plain numbers;
    sparse matrices become dense ones. Pickles of Python 2 and 3, NumPy 1 and 2 are read.

    Args:
        path: such as the published `SMPL_NEUTRAL.pkl`.
        keys: the names wanted; others stay unopened.

    Raises:
        DataError: no such file, truncated, no dictionary, or it asks for a class beyond NumPy's,
            scipy.sparse's and chumpy's arrays (names file and class, or file and key).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected a pickled SMPL body model")
    try:
        with path.open("rb") as file:
            # a class kept from an earlier pickle would be used without asking find_class
            copyreg.clear_extension_cache()
            content = _Reader(file, path).load()
    except DataError:
        raise
    except Exception as error:  # damage shows as one of many types
        raise DataError(f"{path} is truncated or no pickle: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no dictionary of arrays; expected an SMPL body model")
    arrays = {}
    for key in keys:
        try:
            if key in content:
                arrays[key] = _array(content[key])
        except Exception as error:  # the file's own numbers may contradict each other in any way
            raise DataError(f"{path}: {key!r} is no array of numbers: {error!r}") from error
    return arrays


def _array(value: Any) -> Array:
    array = np.asarray(value.array() if hasattr(value, "array") else value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"type {array.dtype}")
    return array


def _from_bytes(data: Any, kind: _Kept, shape: tuple[int, ...], order: Any) -> Array:
    """Return an array of plain numbers; structured types and objects are refused."""
    code, byte_order = kind.parts[0], kind.state[1]
    if isinstance(data, _Kept):  # bytes that Python 3 wrote in an old format
        data = data.parts[0]
    if isinstance(data, str):  # bytes that Python 2 wrote
        data = data.encode("latin1")
    if code[0] not in "biuf":  # before numpy.dtype sees it: objects would be read as addresses
        raise ValueError(f"type {code!r}")
    dtype = np.dtype(f"{byte_order if byte_order in '<>' else '='}{code}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
