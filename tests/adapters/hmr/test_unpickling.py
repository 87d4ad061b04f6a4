"""Published pickles are read without chumpy and without running anything."""

import base64
import copyreg
import os
import pickle
import zlib

import numpy as np
import pytest
import scipy.sparse

from depthbal.adapters.hmr.unpickling import read_pickled_arrays
from depthbal.errors import DataError

VALUES = np.arange(6.0).reshape(2, 3) / 2
MATRICES = ("ch", "csc", "csr", "coo", "column")

WRITTEN_BY_PYTHON_2 = """
eNqlVVuT1EQUTiazF8K67OJ6QUVBBYOXEREVFXdXES9ERl1swQu2Sad3O+VMMqc7kdmHVOHDIvMv+Qk++qYnSWeYzrJV
W0WqOp1Kus/5zne+/nK3U4DtEYelKXSYYvFot6dGgVS8h69cHHQYZDIeu+Cc+wu6Bcx5ZE0EirIgSZOYBQO6nUpcA/P3
yTxVIhhxWPA7vnOPLA6D8UjGSQaL/gXSjYIsgCMsyYeYhKWS94b5IIsDKYNdl0rO0kRlMmeZC269yk2i+isc9a09Yod/
b8GS59v+3J5eEGW7I+7CE6Szfcm3fBsXLHu+Q+zL/X7/2n94VTffysIJ8azqerBRz//o+V89W5v11N3MwpKRARwTrniY
eaXOLDBZfFEnWz0w2ZqNoTo6cvNcBpbpHThuBH5SB17FXdbMjmZkYR6SDhOwxpio2RPuFeHCU9iSpwt4xiNL2KY/OK1b
B89OyFEaxTLbpX/iCzjBKA3zGMlOKHUVR4afuw3PE3sc7G3BC6RL40zCyT5ZoREf8SRSNE3KRwUvFvASBquiRzzB4Kcm
uM/Af7rEX3ZcLE/Iecu4DkM2VtfN+DiDl4kzCBW8guwrBq+29KiYi2OqxzNY/NkCXvPIQpxEMeMKPAPWuRla7RlarSmt
4oix4XW9YXkqlQbtgxbqppoSvUBxC634eUQyQirfMOK+WcbtVkBWmuQOjrmmt04Y78Bbxp5eucepxLbdiO3tSmzrjxDb
Uhl2426ND0U2j+rNhwmcN2K+87BP99t9OkylZEHy+oBfaIQoeSojjmd8x92qv7nwLjbmYgHvecQORCnR9wv4oC3RSxNx
QqAIP9Qi/Eic7AsU28em2C7vE9snjy+2xYTfqetY9x2/cw82WuA2NbhPqxLWOeL7TOO7YuL7fFLGyxMV7yQ8gqsG1C8q
qFUP86aHXx5oGIvlo6X7p/iAswy+egTPN6pPLnyNzF4rwJ/S/E0B19s09+tKsIBvdQHfmQV8v4/grcckmCxQlQVZruAG
cZBp+AEpMlERze+PHunG0VjBTayBHBtJvs2l5JH+jdwqif9J4/7ZxP3LRNxClNi8X8VNA/9tfdpKm27+Cb8dyPopq+UM
jp67eq4PKFMSaNuPJPqRnPrR79iCoIDQE6YNsZYN7f8ntGwo2mdDh6F9xoaEaT9cW8mq9onOjPXkvf8BzNg0FQ==
"""
"""By cPickle of Python 2.7, NumPy 1.16, SciPy 1.2 and chumpy 0.67: VALUES in every form."""


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "SMPL_OLD.pkl"
    path.write_bytes(zlib.decompress(base64.b64decode(WRITTEN_BY_PYTHON_2)))
    return path


def test_a_pickle_of_python_2_with_chumpy_and_sparse_matrices_is_read(old_file):
    keys = (*MATRICES, "select", "reshape", "unsigned", "big", "absent")
    arrays = read_pickled_arrays(old_file, keys)
    for key in MATRICES:
        np.testing.assert_array_equal(arrays[key], VALUES, err_msg=key)
    np.testing.assert_array_equal(arrays["select"], VALUES[:, :2])
    np.testing.assert_array_equal(arrays["reshape"], VALUES.reshape(3, 2))
    assert arrays["unsigned"].tolist() == [4294967295, 0]
    assert arrays["big"].tolist() == [0.0, 1.0, 2.0]
    assert "absent" not in arrays


def test_texts_beyond_ascii_in_the_oldest_format_of_python_2_are_read(tmp_path):
    path = tmp_path / "body.pkl"
    values = np.array([-1.5, 2.25], "<f8")  # as bytes: \x00 to \xf8
    data = "".join(f"\\x{byte:02x}" for byte in values.tobytes()).encode()
    path.write_bytes(
        b"(dS'author'\nS'M\\x9axller'\nsS'a'\ncnumpy.core.multiarray\n_reconstruct\n"
        b"(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'" + data + b"'\ntbs."
    )
    assert read_pickled_arrays(path, ["a"])["a"].tolist() == [-1.5, 2.25]


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
    arrays = read_pickled_arrays(tmp_path / "new.pkl", content)
    for key in content:
        np.testing.assert_array_equal(arrays[key], VALUES, err_msg=key)
    assert arrays["dense"].dtype == np.float32


class _Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (lambda folder: _Runs(os.system, f"touch {folder}/run"), "posix.system"),
        (lambda folder: _Runs(eval, f"open('{folder}/run', 'w')"), "builtins.eval"),
        (lambda folder: _Runs(np.load, f"{folder}/run"), "load"),
        (lambda folder: scipy.sparse.dok_matrix(VALUES), "dok_matrix"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_that_could_run_code_is_refused_and_not_run(tmp_path, bad, name, protocol):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({"v_template": bad(tmp_path)}, protocol))
    with pytest.raises(DataError, match=rf"SMPL_NEUTRAL\.pkl asks for .*{name.split('.')[-1]}"):
        read_pickled_arrays(path, ["v_template"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "named", [b"chumpy.utils\nrow", b"chumpy.ch\nChLambda", b"numpy.core.multiarray\nfromfile"]
)
def test_other_names_of_allowed_packages_are_refused_too(tmp_path, named):
    path = tmp_path / "body.pkl"
    path.write_bytes(b"\x80\x02}U\x01ac" + named + b"\n)Rs.")
    with pytest.raises(DataError, match="asks for " + named.decode().replace("\n", r"\.")):
        read_pickled_arrays(path, ["a"])


@pytest.mark.parametrize("code", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_a_class_that_python_keeps_from_an_earlier_pickle_is_refused_too(tmp_path, code):
    path = tmp_path / "body.pkl"
    call = b"(S'touch " + str(tmp_path / "run").encode() + b"'\ntR"
    copyreg.add_extension("os", "system", 240)
    try:
        pickle.loads(b"\x80\x02" + code + b".")  # now in the cache that find_class does not see
        path.write_bytes(b"\x80\x02}U\x01a" + code + call + b"s.")
        with pytest.raises(DataError, match=r"body\.pkl asks for os\.system"):
            read_pickled_arrays(path, ["a"])
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
def test_negative_indices_of_sparse_matrices_are_refused(tmp_path, layout):
    matrix = getattr(scipy.sparse, f"{layout}_matrix")(VALUES)
    (matrix.col if layout == "coo" else matrix.indices)[0] = -1
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps({"J_regressor": matrix}))
    with pytest.raises(DataError, match=r"body\.pkl: 'J_regressor' .*negative indices"):
        read_pickled_arrays(path, ["J_regressor"])


@pytest.mark.parametrize(
    "content",
    [
        np.array([{}, None], dtype=object),
        np.zeros(2, dtype=[("x", "f8")]),
        np.array(["text"]),
        scipy.sparse.csc_matrix,  # the class itself, without any content
    ],
)
def test_arrays_of_anything_but_numbers_are_refused_by_key(tmp_path, content):
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps({"weights": content, "other": VALUES}))
    assert read_pickled_arrays(path, ["other"])["other"].shape == (2, 3)  # nobody asked for it
    with pytest.raises(DataError, match=r"body\.pkl: 'weights' is no array of numbers"):
        read_pickled_arrays(path, ["weights"])


def test_damaged_missing_and_foreign_files_are_named(tmp_path, old_file):
    old_file.write_bytes(old_file.read_bytes()[:300])
    with pytest.raises(DataError, match=r"SMPL_OLD\.pkl is truncated or no pickle"):
        read_pickled_arrays(old_file, ["ch"])
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match=r"list\.pkl holds no dictionary"):
        read_pickled_arrays(tmp_path / "list.pkl", ["ch"])
    with pytest.raises(DataError, match=r"no file .*absent\.pkl"):
        read_pickled_arrays(tmp_path / "absent.pkl", ["ch"])
