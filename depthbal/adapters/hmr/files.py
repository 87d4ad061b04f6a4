"""SPIN's files, read without running code from them: bodies, people in pictures, fits."""

import copyreg
import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from depthbal.errors import DataError

SOURCES = """
smpl/SMPL_NEUTRAL.pkl (or .npz): smplify.is.tue.mpg.de, after registration
smpl/SMPL_MALE.pkl, SMPL_FEMALE.pkl: smpl.is.tue.mpg.de; not with --data.ground_truth neutral
smpl_mean_params.npz, J_regressor_h36m.npy: SPIN's data.tar.gz, or the links in MMHuman3D's README
dataset_extras/3dpw_test.npz and any of h36m_train, mpi_inf_3dhp_train, lsp_dataset_original_train,
  hr-lspet_train, mpii_train, coco_2014_train: SPIN's dataset_extras.tar.gz, or its preprocessing
static_fits/NAME_fits.npy or spin_fits/NAME.npz: SPIN's static_fits.tar.gz, spin_fits.tar.gz
images/NAME/: each data set's site; with --model.model.weights, SPIN's model_checkpoint.pt or
  MMHuman3D's spin_official_nofc.pth; or in their place features/STEM.npy, float32 (rows, F)
(SPIN's host, visiondata.cis.upenn.edu/spin, is reported unreachable since 2025.)"""
"""What SPIN's data folder holds, and where it comes from."""

Array = NDArray[Any]
People = dict[str, Array]
"""Columns of N people in pictures: "file"; the box, "center" (N, 2) in pixels and "scale" (N,) in
200 pixels; "pose" (N, 72) axis-angle in radians and "betas" (N, 10), 0 where unknown; "valid" where
the body may be learned from; "gender" 0 male, 1 female, -1 unknown."""
FitsKind = Literal["static", "final"]
JOINTS, POSE, BETAS, TEST = 24, 72, 10, "3dpw"
STEMS = {
    "h36m": "h36m_train",
    "mpi_inf_3dhp": "mpi_inf_3dhp_train",
    "lsp": "lsp_dataset_original_train",
    "lspet": "hr-lspet_train",
    "mpii": "mpii_train",
    "coco": "coco_2014_train",
    TEST: "3dpw_test",
}
STATIC = {"mpi_inf_3dhp": "mpi-inf-3dhp", "lsp": "lsp-orig"}  # static fits of the others: as here
_TEXTS = ("imgname", "gender")
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


def read_arrays(
    path: Path, sizes: dict[str, Any], optional: Collection[str] = (), **shapes: Any
) -> dict[str, Array]:
    """Return the named arrays of a file, checked; of the words in shapes `sizes` keeps the numbers.

    Raises:
        DataError: The file is missing or damaged or asks for code, or a key is missing, of another
            shape or holds no finite numbers; names file and key.
    """
    try:
        arrays = _load(path, shapes)
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}. What is needed, and from where:{SOURCES}") from error
    except Exception as error:  # damage shows as one of many types
        raise DataError(f"cannot read {path}: {error}") from error
    if missing := shapes.keys() - arrays.keys() - set(optional):
        raise DataError(f"{path} lacks the keys {sorted(missing)}; expected {', '.join(shapes)}")
    for key, found in arrays.items():
        pairs = zip(shapes[key], (*found.shape, *shapes[key]), strict=False)
        wanted = tuple(sizes.setdefault(a, b) if isinstance(a, str) else a for a, b in pairs)
        if found.shape != wanted:
            raise DataError(f"{path}: {key!r} has shape {found.shape}, expected {wanted}")
        if key not in _TEXTS and not (found.dtype.kind in "biuf" and np.isfinite(found).all()):
            raise DataError(f"{path}: {key!r} ({found.dtype}) must hold finite numbers")
    return arrays


def read_smpl(path: Path, sizes: dict[str, Any]) -> dict[str, Array]:
    """Return the arrays of an SMPL body model, .npz or published .pkl, of V vertices in metres."""
    return read_arrays(
        path,
        sizes,
        v_template=("V", 3),
        shapedirs=("V", 3, "components"),
        posedirs=("V", 3, 9 * (JOINTS - 1)),
        J_regressor=(JOINTS, "V"),
        kintree_table=(2, JOINTS),
        weights=("V", JOINTS),
    )


def rows_file(root: Path, name: str) -> Path:
    """Return where the rows of a data set are."""
    return root / "dataset_extras" / f"{STEMS[name]}.npz"


def read_people(root: Path, name: str, kind: FitsKind = "static") -> People:
    """Return a data set's people, of SPIN's ``dataset_extras`` and its fits where there are any.

    Without ``pose`` and ``shape`` no body is known; with both but without ``has_smpl`` all are.
    Unknown ones are taken from the fits; other keys (keypoints) are left alone.
    Source: SPIN, datasets/base_dataset.py, train/fits_dict.py.
    """
    path, sizes = rows_file(root, name), dict[str, Any]()
    boxes = {"scale": ("N",), "center": ("N", 2), "imgname": ("N",), "gender": ("N",)}
    body = {"pose": ("N", POSE), "shape": ("N", BETAS), "has_smpl": ("N",)}
    found = read_arrays(path, sizes, (*body, "gender"), **boxes, **body)
    count = sizes["N"]
    gender = found.get("gender", np.full(count, "")).astype(np.str_)
    known = found.get("has_smpl", np.ones(count)) if "pose" in found else np.zeros(count)
    if not (count and found["scale"].min() > 0 and set(gender.tolist()) <= {"m", "f", ""}):
        raise DataError(f"{path}: expected rows with scale above 0, and gender 'm' or 'f'")
    if ("pose" in found) != ("shape" in found):
        raise DataError(f"{path} must hold both 'pose' and 'shape', or neither")
    files = [root / "images" / name / file for file in found["imgname"].astype(np.str_).tolist()]
    people: People = {
        "file": np.array([str(file) for file in files]),
        "center": found["center"].astype(np.float64),
        "scale": found["scale"].astype(np.float64),
        "pose": found.get("pose", np.zeros((count, POSE))).astype(np.float32),
        "betas": found.get("shape", np.zeros((count, BETAS))).astype(np.float32),
        "valid": known.astype(bool),
        "gender": np.select([gender == "m", gender == "f"], [0, 1], -1),
    }
    static = root / "static_fits" / f"{STATIC.get(name, name)}_fits.npy"
    fits = static if kind == "static" else root / "spin_fits" / f"{name}.npz"
    if fits.is_file():
        pose, betas, fitted = read_fits(fits, count)
        unknown = ~people["valid"][:, None]
        people["pose"] = np.where(unknown, pose, people["pose"])
        people["betas"] = np.where(unknown, betas, people["betas"])
        people["valid"] = people["valid"] | fitted
    largest = np.abs(people["pose"][people["valid"]]).max(axis=1, initial=0)
    if len(largest) and np.median(largest) > 2 * np.pi:  # a single fit may have run away
        raise DataError(f"{path} or {fits}: half of the poses go beyond 2 pi; expected radians")
    return people


def read_fits(path: Path, rows: int) -> tuple[Array, Array, Array]:
    """Return pose (N, 72), betas (N, 10) and which count (N,), in the order of the npz file.

    Static fits (.npy, (N, 82)) come without a judgement, so all count; final fits (.npz) say it.
    Shapes with a coefficient beyond 3 are no believable bodies and become 0 (MMHuman3D).
    """
    if path.suffix == ".npy":
        table = read_arrays(path, {}, fits=(rows, POSE + BETAS))["fits"]
        pose, betas, valid = table[:, :POSE], table[:, POSE:], np.ones(rows)
    else:
        body = {"pose": (rows, POSE), "betas": (rows, BETAS), "valid_fit": (rows,)}
        pose, betas, valid = map(read_arrays(path, {}, (), **body).__getitem__, body)
    believable = (np.abs(betas) <= 3).all(axis=1, keepdims=True)
    betas = np.where(believable, betas, 0)
    return pose.astype(np.float32), betas.astype(np.float32), valid.astype(bool)
