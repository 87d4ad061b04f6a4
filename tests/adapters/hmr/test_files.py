"""SPIN's files: pickles run nothing, what keys mean, and what is refused by file and key."""

import copyreg
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from depthbal.adapters.hmr.files import SMPL_SHAPES, STEMS, read_fits, read_people
from depthbal.adapters.hmr.synthetic import synthetic_smpl
from depthbal.data.arrays import read_arrays
from depthbal.errors import DataError

VALUES = np.arange(6.0).reshape(2, 3) / 2

WRITTEN_BY_PYTHON_2 = Path(__file__).with_name("python2.pkl").read_bytes()
"""By cPickle of Python 2.7, NumPy 1.16, SciPy 1.2 and chumpy 0.67: VALUES in every form."""


def read(path, *keys):
    return read_arrays(path, {key: (f"{key} 0", f"{key} 1") for key in keys}, optional=keys)


def test_a_pickle_of_python_2_with_chumpy_and_sparse_matrices_is_read(tmp_path):
    path = tmp_path / "SMPL_OLD.pkl"
    path.write_bytes(WRITTEN_BY_PYTHON_2)
    arrays = read(path, "ch", "csc", "csr", "coo", "column", "select", "reshape", "absent")
    for key in ("ch", "csc", "csr", "coo", "column"):
        np.testing.assert_array_equal(arrays[key], VALUES, err_msg=key)
    np.testing.assert_array_equal(arrays["select"], VALUES[:, :2])
    np.testing.assert_array_equal(arrays["reshape"], VALUES.reshape(3, 2))
    assert "absent" not in arrays
    assert read_arrays(path, {"unsigned": (2,)})["unsigned"].tolist() == [4294967295, 0]
    path.write_bytes(WRITTEN_BY_PYTHON_2[:300])
    with pytest.raises(DataError, match=r"cannot read .*SMPL_OLD\.pkl"):
        read(path, "ch")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("room", ["core", "_core"])
def test_every_pickle_format_of_numpy_1_and_2_is_read(tmp_path, protocol, room):
    content = {
        "dense": VALUES.astype(np.float32),
        "column": np.asfortranarray(VALUES),
        "csc": scipy.sparse.csc_matrix(VALUES),
        "csr": scipy.sparse.csr_array(VALUES),
        "coo": scipy.sparse.coo_matrix(VALUES),
    }
    text = pickle.dumps(content, protocol)
    if protocol < 4:  # later formats give the length of each name
        text = text.replace(b"numpy._core.", f"numpy.{room}.".encode())
    (tmp_path / "new.pkl").write_bytes(text)
    arrays = read(tmp_path / "new.pkl", *content)
    for key in content:
        np.testing.assert_array_equal(arrays[key], VALUES, err_msg=key)
    assert arrays["dense"].dtype == np.float32


class Call:
    """Something whose pickle asks for a call when it is read."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (lambda file: Call(os.system, f"touch {file}"), "system"),
        (lambda file: Call(np.load, str(file)), "load"),
        (lambda file: scipy.sparse.dok_matrix(VALUES), "dok_matrix"),
        (lambda file: Call(np.fromfile, str(file)), "fromfile"),
    ],
)
def test_anything_that_could_run_code_is_refused_and_not_run(tmp_path, bad, name, protocol):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({"a": bad(tmp_path / "run")}, protocol))
    with pytest.raises(DataError, match=rf"SMPL_NEUTRAL\.pkl: it asks for .*{name}"):
        read(path, "a")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("code", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_a_class_that_python_keeps_from_an_earlier_pickle_is_refused_too(tmp_path, code):
    path = tmp_path / "body.pkl"
    call = b"(S'touch " + str(tmp_path / "run").encode() + b"'\ntR"
    copyreg.add_extension("os", "system", 240)
    try:
        pickle.loads(b"\x80\x02" + code + b".")  # now in the cache that find_class does not see
        path.write_bytes(b"\x80\x02}U\x01a" + code + call + b"s.")
        with pytest.raises(DataError, match=r"body\.pkl: it asks for os\.system"):
            read(path, "a")
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not (tmp_path / "run").exists()


def outside(layout):
    matrix = getattr(scipy.sparse, f"{layout}_matrix")(VALUES)
    (matrix.col if layout == "coo" else matrix.indices)[0] = -1
    return matrix


NO_NUMBERS = [outside("csc"), outside("csr"), outside("coo"), np.array([[{}, None]], dtype=object)]
NO_NUMBERS += [np.zeros((2, 1), dtype=[("x", "f8")]), np.array([["text"]]), scipy.sparse.csc_matrix]


@pytest.mark.parametrize("content", [*NO_NUMBERS, np.full((2, 3), np.nan)])
def test_what_holds_no_finite_numbers_is_refused(tmp_path, content):
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps({"weights": content, "other": VALUES}))
    assert read(path, "other")["other"].shape == (2, 3)  # nobody asked for the bad one
    with pytest.raises(DataError, match=r"body\.pkl"):
        read(path, "weights")


@pytest.mark.parametrize("name", ["SMPL_NEUTRAL.pkl", "body.npz"])
def test_both_kinds_of_body_file_hold_the_same_and_name_what_does_not_fit(tmp_path, name):
    body, sizes, path = synthetic_smpl(vertices=30, seed=3), {}, tmp_path / name

    def write(arrays):
        if path.suffix == ".npz":
            np.savez(path, **arrays)
        else:
            sparse = {**arrays, "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"])}
            path.write_bytes(pickle.dumps({**sparse, "bs_type": "lrotmin"}, protocol=2))
        return path

    arrays = read_arrays(write(body), SMPL_SHAPES, sizes)
    assert sizes["V"] == 30
    for key in body:
        np.testing.assert_array_equal(arrays[key], body[key], err_msg=key)
    for key, wrong in {
        "weights": body["weights"][:29],
        "v_template": np.nan * body["v_template"],
    }.items():
        with pytest.raises(DataError, match=rf"{name}: '{key}'"):
            read_arrays(write({**body, key: wrong}), SMPL_SHAPES)
    del body["weights"]
    with pytest.raises(DataError, match=r"lacks the keys \['weights'\]"):
        read_arrays(write(body), SMPL_SHAPES)


# ---- people ----

BODIES = {"pose": np.full((3, 72), 0.5), "shape": np.full((3, 10), 2.0)}


def people(folder, fits=None, kind="static", **changes):
    """Write three rows of COCO, and fits; read them."""
    arrays = {
        "imgname": np.array(["a.jpg", "b.jpg", "c.jpg"]),
        "center": np.array([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]),
        "scale": np.array([0.5, 1.0, 1.5]),
        "part": np.zeros((3, 24, 3)),
    }
    for name in ("dataset_extras", "static_fits", "spin_fits"):
        (folder / name).mkdir(exist_ok=True)
    np.savez(folder / "dataset_extras" / "coco_2014_train.npz", **{**arrays, **changes})
    if isinstance(fits, dict):
        np.savez(folder / "spin_fits" / "coco.npz", **fits)
    elif fits is not None:
        np.save(folder / "static_fits" / "coco_fits.npy", fits)
    return read_people(folder, "coco", kind)


def test_what_is_known_of_a_body_depends_on_the_keys_and_fits_fill_in_the_rest(tmp_path):
    nothing = people(tmp_path)
    assert not nothing["valid"].any()
    assert nothing["gender"].tolist() == [-1, -1, -1]
    assert nothing["file"][0] == str(tmp_path / "images" / "coco" / "a.jpg")
    assert people(tmp_path, **BODIES, imgname=np.array([b"a", b"b", b"c"]))["valid"].all()
    some = {**BODIES, "has_smpl": np.array([1.0, 0, 0]), "gender": np.array(["m", "f", "m"])}
    rows = people(tmp_path, **some)
    assert rows["valid"].tolist() == [True, False, False]
    assert rows["gender"].tolist() == [0, 1, 0]
    fits = {"pose": np.ones((3, 72)), "betas": np.zeros((3, 10)), "valid_fit": [0, 1, 0]}
    rows = people(tmp_path, fits, "final", **some)
    assert rows["valid"].tolist() == [True, True, False]
    assert rows["pose"][:, 0].tolist() == [0.5, 1, 1]
    assert rows["betas"][:, 0].tolist() == [2, 0, 0]
    table = np.random.default_rng(0).uniform(-1, 1, size=(3, 82))  # static fits all count
    table[1, 75] = -3.5  # a shape beyond three becomes the mean shape
    table[2, 3] = 40.0  # a single fit may have run away
    rows = people(tmp_path, table)
    assert rows["valid"].all()
    np.testing.assert_allclose(rows["pose"], table[:, :72], rtol=1e-6)
    np.testing.assert_allclose(
        rows["betas"], np.where([[0], [1], [0]], 0, table[:, 72:]), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgname": np.array([{"a": 1}, None, 3])}, "coco_2014_train"),
        ({"pose": np.zeros((3, 72))}, "both 'pose' and 'shape'"),
        ({**BODIES, "has_smpl": np.ones(2)}, "has_smpl"),
        ({"fits": np.zeros((5, 82))}, r"coco_fits\.npy.*\(5, 82\), expected \(3, 82\)"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file_and_key(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        people(tmp_path, **changes)


def test_missing_and_damaged_files_are_named_with_what_is_needed(tmp_path):
    with pytest.raises(DataError, match=r"no file .*coco_2014_train\.npz\. What is needed.*"):
        read_people(tmp_path, "coco")
    with pytest.raises(DataError, match=r"smplify\.is\.tue\.mpg\.de") as caught:
        read_fits(tmp_path / "lsp_fits.npy", 3)
    assert all(stem.removesuffix("_test") in str(caught.value) for stem in STEMS.values())
