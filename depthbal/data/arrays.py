"""Named arrays of foreign files, .npz, .npy or pickles, checked and read without running code."""

import copyreg
import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from depthbal.errors import DataError

Array = NDArray[Any]
_ALLOWED = re.compile(
    r"numpy\.(ndarray|dtype)|numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
    r"|scipy\.sparse\._?(csc\.csc|csr\.csr|coo\.coo)_(matrix|array)"
    r"|chumpy\.(ch\.Ch|reordering\.(Select|Reshape))"
    r"|_codecs\.encode|(__builtin__|builtins)\.(object|set)|copy_?reg\._reconstructor"
)


class _Kept:
    """Stands for anything a pickle names: keeps what it is built from and does nothing with it."""

    state: Any = None

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """Builds stand-ins only, whatever the file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if not _ALLOWED.fullmatch(f"{module}.{name}"):
            raise DataError(
                f"it asks for {module}.{name}; only arrays of NumPy, scipy.sparse and chumpy are "
                "read from a pickle, because anything else could run code"
            )
        if name == "_reconstructor":  # how the oldest formats make an object
            return lambda kind, *_: kind()
        return type(name, (_Kept,), {})


def _array(value: Any) -> Array:
    """Return the numbers of a stand-in, made by NumPy and SciPy, which check sizes and indices."""
    if not isinstance(value, _Kept):
        return np.asarray(value)
    name, state = type(value).__name__, value.state
    if name == "_reconstruct":
        return _numbers(state[4], state[2], state[1], "F" if state[3] else "C")
    if name == "_frombuffer":
        return _numbers(*value.parts[:4])
    if name == "Ch":
        return _array(state["x"])
    if name == "Select":  # a slice as chumpy keeps it
        chosen = _array(state["a"]).ravel()[_array(state["idxs"])]
        return chosen.reshape(state.get("preferred_shape", chosen.shape))
    if name == "Reshape":
        return _array(state["a"]).reshape(state["newshape"])
    if name.startswith("coo"):
        row, column = map(_array, state.get("coords") or (state["row"], state["col"]))
        entries = _array(state["data"]), (row, column)
        return np.asarray(scipy.sparse.coo_matrix(entries, state["_shape"]).toarray())
    parts = tuple(_array(state[key]) for key in ("data", "indices", "indptr"))
    sparse = getattr(scipy.sparse, f"{name[:3]}_matrix")(parts, state["_shape"])
    sparse.check_format(full_check=True)
    return np.asarray(sparse.toarray())


def _numbers(data: Any, kind: _Kept, shape: tuple[int, ...], order: Any) -> Array:
    """Return an array of plain numbers; of any other type the bytes might be addresses."""
    code, byte_order = kind.parts[0], kind.state[1]
    if code[0] not in "biuf":
        raise ValueError(f"an array of type {code!r} holds no numbers")
    data = data.parts[0] if isinstance(data, _Kept) else data  # Python 3's bytes in old formats
    data = data.encode("latin1") if isinstance(data, str) else data  # Python 2's
    dtype = np.dtype(f"{byte_order if byte_order in '<>' else '='}{code}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def read_arrays(
    path: Path,
    shapes: Mapping[str, tuple[int | str, ...]],
    sizes: dict[str, Any] | None = None,
    optional: Collection[str] = (),
    texts: Collection[str] = (),
    hint: str = "",
) -> dict[str, Array]:
    """Return the named arrays of a file after checking that they are what they should be.

    The file is an .npz, an .npy (its single array gets the first name), or a pickle of Python 2 or
    3, NumPy 1 or 2, protocol 0 to 5: a dictionary of arrays of NumPy, scipy.sparse (which become
    dense) and chumpy (which need not be installed). `shapes` have words for sizes that arrays share
    ("V"); `sizes` gets their numbers, or has them from another file. All but `texts` are finite
    numbers; all but `optional` must be there; `hint` is what to say of a missing file.
    """
    try:
        arrays = _load(path, shapes)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}{hint}") from error
    except Exception as error:  # damage shows as one of many types
        raise DataError(f"cannot read {path}: {error}") from error
    sizes = {} if sizes is None else sizes
    if missing := shapes.keys() - arrays.keys() - set(optional):
        raise DataError(f"{path} lacks the keys {sorted(missing)}; expected {', '.join(shapes)}")
    for key, found in arrays.items():
        pairs = zip(shapes[key], (*found.shape, *shapes[key]), strict=False)
        wanted = tuple(sizes.setdefault(a, b) if isinstance(a, str) else a for a, b in pairs)
        if found.shape != wanted:
            raise DataError(f"{path}: {key!r} has shape {found.shape}, expected {wanted}")
        if key not in texts and not (found.dtype.kind in "biuf" and np.isfinite(found).all()):
            raise DataError(f"{path}: {key!r} ({found.dtype}) must hold finite numbers")
    return arrays


def _load(path: Path, keys: Collection[str]) -> dict[str, Array]:
    """Return those of the named arrays that an .npz, an .npy (its one) or a pickle holds."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in keys if key in content.files}
    if path.suffix == ".npy":
        return {next(iter(keys)): np.load(path, mmap_mode="r", allow_pickle=False)}
    # a class that an earlier pickle left there would be used without asking find_class
    copyreg.clear_extension_cache()
    with path.open("rb") as file:
        content = _Reader(file, encoding="latin1").load()
    return {key: _array(content[key]) for key in keys if key in content}
