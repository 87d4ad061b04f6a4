"""SPIN's files, read without running code from them: bodies, people in pictures, fits."""

import copyreg
import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from depthbal.errors import DataError

Array = NDArray[Any]
People = dict[str, Array]
"""Columns of N people in pictures: "file"; the box, "center" (N, 2) in pixels and "scale" (N,) in
200 pixels; "pose" (N, 72) axis-angle in radians and "betas" (N, 10), 0 where unknown; "valid" where
the body may be learned from; "gender" 0 male, 1 female, -1 unknown; "set", the data set's name."""
FitsKind = Literal["static", "final"]

JOINTS, POSE, BETAS = 24, 72, 10
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""SMPL's kinematic tree: pelvis, hips, spine, knees, ... hands."""
STEMS = {
    "h36m": "h36m_train",
    "mpi_inf_3dhp": "mpi_inf_3dhp_train",
    "lsp": "lsp_dataset_original_train",
    "lspet": "hr-lspet_train",
    "mpii": "mpii_train",
    "coco": "coco_2014_train",
    "3dpw": "3dpw_test",
}
"""What SPIN calls the rows of the training sets and of the test set."""
TEST = "3dpw"
STATIC = {"mpi_inf_3dhp": "mpi-inf-3dhp", "lsp": "lsp-orig"}  # other static fits have our names
SMPL_SHAPES = {
    "v_template": ("V", 3),
    "shapedirs": ("V", 3, "betas"),
    "posedirs": ("V", 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, "V"),
    "kintree_table": (2, JOINTS),
    "weights": ("V", JOINTS),
}
"""What is read of a body model: metres, V vertices (6890 in the published ones)."""
_TEXTS = ("imgname", "gender")
_ALLOWED = re.compile(
    r"numpy\.(ndarray|dtype)|numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
    r"|scipy\.sparse\._?(csc\.csc|csr\.csr)_(matrix|array)"
    r"|chumpy\.(ch\.Ch|reordering\.(Select|Reshape))"
    r"|_codecs\.encode|(__builtin__|builtins)\.(object|set)|copy_?reg\._reconstructor"
)


class _Kept:
    """Stands for anything a pickle names: keeps what it is built from and does nothing with it."""

    parts: tuple[Any, ...] = ()
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
    name, state = type(value).__name__, getattr(value, "state", None)
    if not isinstance(value, _Kept):
        return np.asarray(value)
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


def _load(path: Path, keys: Iterable[str]) -> dict[str, Array]:
    """Return those of the named arrays that an .npz, an .npy (one) or a pickle holds."""
    try:
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
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except Exception as error:  # damage shows as one of many types
        raise DataError(f"cannot read {path}: {error}") from error


def read_arrays(
    path: Path, shapes: Mapping[str, tuple[int | str, ...]], optional: Collection[str] = ()
) -> dict[str, Array]:
    """Return the named arrays of a file, of checked shapes; a text in one is the same size in all.

    Raises:
        DataError: The file is missing, damaged or asks for code, or a key is missing, of another
            shape or holds no finite numbers; names file and key.
    """
    arrays, sizes = _load(path, shapes), dict[str, Any]()
    if missing := [key for key in shapes if key not in arrays and key not in optional]:
        raise DataError(f"{path} lacks the key {missing[0]!r}; expected {', '.join(shapes)}")
    for key, found in arrays.items():
        pairs = zip(shapes[key], (*found.shape, *shapes[key]), strict=False)
        wanted = tuple(sizes.setdefault(a, b) if isinstance(a, str) else a for a, b in pairs)
        if found.shape != wanted:
            shown = ", ".join(map(str, wanted))
            raise DataError(f"{path}: {key!r} has shape {found.shape}, expected ({shown})")
        numbers = found.dtype.kind in "biuf" and np.isfinite(found).all()
        if not (numbers or (key in _TEXTS and found.dtype.kind in "SU")):
            what = "texts" if key in _TEXTS else "finite numbers"
            raise DataError(f"{path}: {key!r} (type {found.dtype}) must hold {what}")
    return arrays


def read_smpl(path: Path) -> dict[str, Array]:
    """Return the arrays of `SMPL_SHAPES` of a body model, .npz or published .pkl, checked."""
    arrays = read_arrays(path, SMPL_SHAPES)
    components = arrays["shapedirs"].shape[2]
    extent = float(np.ptp(arrays["v_template"], axis=0).max())
    sums = arrays["weights"].sum(axis=1)
    parents = arrays["kintree_table"][0, 1:].astype(np.int64).tolist()
    for right, what in (
        (components >= BETAS, f"'shapedirs' has {components} components, expected {BETAS} or more"),
        (0.5 <= extent <= 5, f"'v_template' is {extent:.4g} long, expected 0.5 to 5 metres"),
        (np.abs(sums - 1).max() < 1e-3, f"the rows of 'weights' sum to {sums.max():.4g}, not to 1"),
        (parents == list(PARENTS[1:]), f"'kintree_table' names the parents {parents}, not SMPL's"),
    ):
        if not right:
            raise DataError(f"{path}: {what}")
    return {**arrays, "shapedirs": arrays["shapedirs"][:, :, :BETAS]}


def rows_file(root: Path, name: str) -> Path:
    """Return where the rows of a data set are."""
    return root / "dataset_extras" / f"{STEMS[name]}.npz"


def read_people(root: Path, name: str, kind: FitsKind = "static") -> People:
    """Return a data set's people, of SPIN's ``dataset_extras`` and its fits where there are any.

    Without ``pose`` and ``shape`` no body is known; with both but without ``has_smpl`` all are.
    Unknown ones are taken from the fits; other keys (keypoints) are left alone.

    Raises:
        DataError: As `read_arrays`, or a box is empty, a gender neither m nor f, poses in degrees,
            the fits of another number of rows.

    Source: SPIN, datasets/base_dataset.py.
    """
    path = rows_file(root, name)
    needed = {"scale": ("N",), "center": ("N", 2), "imgname": ("N",)}
    more = {"gender": ("N",), "has_smpl": ("N",), "pose": ("N", POSE), "shape": ("N", BETAS)}
    found = read_arrays(path, needed | more, more)
    count, scale = len(found["scale"]), found["scale"].astype(np.float64)
    gender = found.get("gender", np.full(count, "")).astype(np.str_)
    strange = set(gender.tolist()) - ({"m", "f"} if "gender" in found else {""})
    if not (count and scale.min() > 0):
        raise DataError(f"{path}: expected rows with scale above 0, got {scale}")
    if ("pose" in found) != ("shape" in found):
        raise DataError(f"{path} must hold both 'pose' and 'shape', or neither")
    if strange:
        raise DataError(f"{path}: expected 'm' or 'f' in gender, got {sorted(strange)[:3]}")
    valid = found.get("has_smpl", np.ones(count)) if "pose" in found else np.zeros(count)
    pose = _radians(path, found.get("pose", np.zeros((count, POSE))), valid)
    betas = found.get("shape", np.zeros((count, BETAS))).astype(np.float32)
    valid = valid.astype(bool)
    static = root / "static_fits" / f"{STATIC.get(name, name)}_fits.npy"
    fits = static if kind == "static" else root / "spin_fits" / f"{name}.npz"
    if fits.is_file():
        fitted = read_fits(fits, count)
        pose = np.where(valid[:, None], pose, fitted[0])
        betas = np.where(valid[:, None], betas, fitted[1])
        valid = valid | fitted[2]
    images = [str(root / "images" / name / file) for file in found["imgname"].astype(str).tolist()]
    return {
        "file": np.array(images),
        "center": found["center"].astype(np.float64),
        "scale": scale,
        "pose": pose,
        "betas": betas,
        "valid": valid,
        "gender": np.select([gender == "m", gender == "f"], [0, 1], -1),
        "set": np.full(count, name),
    }


def read_fits(path: Path, rows: int) -> tuple[Array, Array, Array]:
    """Return pose (N, 72), betas (N, 10) and which count (N,), in the order of the npz file.

    Static fits (.npy, (N, 82)) come without a judgement, so all count; final fits (.npz) say it.
    Shapes with a coefficient beyond 3 are no believable bodies and become 0.

    Source: SPIN, train/fits_dict.py; MMHuman3D, mesh_estimator.py.
    """
    if path.suffix == ".npy":
        table = read_arrays(path, {"fits": ("N", POSE + BETAS)})["fits"]
        pose, betas, valid = table[:, :POSE], table[:, POSE:], np.ones(len(table))
    else:
        shapes = {"pose": ("N", POSE), "betas": ("N", BETAS), "valid_fit": ("N",)}
        pose, betas, valid = map(read_arrays(path, shapes).__getitem__, shapes)
    if len(pose) != rows:
        raise DataError(
            f"{path} has {len(pose)} rows, the data set's npz file has {rows}: they belong to "
            "different versions of the data set"
        )
    believable = (np.abs(betas) <= 3).all(axis=1, keepdims=True)
    betas = np.where(believable, betas, 0).astype(np.float32)
    return _radians(path, pose, valid), betas, valid.astype(bool)


def _radians(path: Path, pose: Array, valid: Array) -> Array:
    """Return poses, unless half of those that count look like degrees: one fit may run away."""
    largest = np.abs(pose[valid.astype(bool)]).max(axis=1, initial=0)
    if len(largest) and np.median(largest) > 2 * np.pi:
        raise DataError(
            f"{path}: 'pose' goes up to {largest.max():.4g}, beyond 2 pi in half of the rows; "
            "expected axis-angle in radians, this looks like degrees"
        )
    return pose.astype(np.float32)
