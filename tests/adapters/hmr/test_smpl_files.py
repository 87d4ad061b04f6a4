"""Body model files of both kinds give the same arrays; wrong ones are named by file and key."""

import pickle

import numpy as np
import pytest
import scipy.sparse

from depthbal.adapters.hmr.smpl_files import (
    SMPL_SHAPES,
    read_joint_regressor,
    read_smpl,
    synthetic_h36m_regressor,
    synthetic_smpl,
)
from depthbal.errors import DataError


def _write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        published = {**arrays, "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"])}
        path.write_bytes(pickle.dumps({**published, "bs_type": "lrotmin"}, protocol=2))
    return path


@pytest.mark.parametrize("name", ["SMPL_NEUTRAL.pkl", "body.npz"])
def test_both_kinds_of_file_hold_the_same_body(tmp_path, name):
    body = synthetic_smpl(vertices=40, seed=3)
    arrays = read_smpl(_write(tmp_path / name, body))
    assert set(arrays) == set(SMPL_SHAPES)
    for key in SMPL_SHAPES:
        np.testing.assert_array_equal(arrays[key], body[key], err_msg=key)


def test_further_shape_components_are_cut_off(tmp_path):
    body = synthetic_smpl(vertices=24)
    ten = body["shapedirs"]
    body["shapedirs"] = np.concatenate([ten, np.ones((24, 3, 290))], axis=2)
    found = read_smpl(_write(tmp_path / "SMPL_MALE.pkl", body))["shapedirs"]
    np.testing.assert_array_equal(found, ten)


@pytest.mark.parametrize("name", ["SMPL_NEUTRAL.pkl", "body.npz"])
@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("weights", lambda a: a[:, :23], r"'weights' has shape \(30, 23\), expected \(30, 24\)"),
        ("weights", lambda a: a[:29], r"'weights' has shape \(29, 24\), expected \(30, 24\)"),
        ("posedirs", lambda a: a[..., :206], r"'posedirs' has shape .*expected \(30, 3, 207\)"),
        ("J_regressor", lambda a: a.T, r"'J_regressor' has shape \(30, 24\), expected \(24, 30\)"),
        ("v_template", lambda a: a * np.nan, r"'v_template' .*finite"),
        ("v_template", lambda a: None, r"lacks the key 'v_template'"),
        ("shapedirs", lambda a: a[..., :5], r"'shapedirs' has 5 components, expected at least 10"),
        ("kintree_table", lambda a: 0 * a, "'kintree_table' names the parents"),
        ("v_template", lambda a: 1000 * a, r"'v_template' is \d+ long, expected .*metres"),
        ("v_template", lambda a: a / 100, r"'v_template' is 0\.\d+ long, expected .*metres"),
        ("weights", lambda a: 3 * a, r"rows of 'weights' sum to 3 to 3, expected 1"),
    ],
)
def test_wrong_arrays_are_errors_that_name_file_and_key(tmp_path, name, key, change, message):
    body = synthetic_smpl(vertices=30)
    changed = change(body.pop(key))
    if changed is not None:
        body[key] = changed
    if "J_regressor" not in body:
        body["J_regressor"] = np.zeros((24, 30))
    path = _write(tmp_path / name, body)
    with pytest.raises(DataError, match=message) as caught:
        read_smpl(path)
    assert str(path) in str(caught.value)


def test_a_root_without_parent_may_be_written_as_published(tmp_path):
    body = synthetic_smpl(vertices=30)
    body["weights"] = body["weights"].astype(np.float32)
    assert body["kintree_table"][0, 0] == 2**32 - 1  # as in the published files
    read_smpl(_write(tmp_path / "SMPL_NEUTRAL.pkl", body))
    body["kintree_table"] = body["kintree_table"].astype(np.int64)
    body["kintree_table"][0, 0] = -1
    read_smpl(_write(tmp_path / "SMPL_NEUTRAL.pkl", body))


def test_files_that_are_not_what_their_name_says_are_named(tmp_path):
    (tmp_path / "body.npz").write_text("<html>")
    with pytest.raises(DataError, match=r"cannot read .*body\.npz"):
        read_smpl(tmp_path / "body.npz")
    with pytest.raises(DataError, match=r"no file .*absent\.npz"):
        read_smpl(tmp_path / "absent.npz")
    np.savez(tmp_path / "objects.npz", v_template=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"cannot read .*objects\.npz"):
        read_smpl(tmp_path / "objects.npz")


def test_a_joint_regressor_must_fit_the_body(tmp_path):
    regressor = synthetic_h36m_regressor(synthetic_smpl(vertices=30))
    np.save(tmp_path / "J_regressor_h36m.npy", regressor)
    found = read_joint_regressor(tmp_path / "J_regressor_h36m.npy", vertices=30)
    np.testing.assert_array_equal(found, regressor)
    with pytest.raises(DataError, match=r"h36m\.npy.*\(17, 30\), expected \(17, 6890\)"):
        read_joint_regressor(tmp_path / "J_regressor_h36m.npy", vertices=6890)
    with pytest.raises(DataError, match="no file"):
        read_joint_regressor(tmp_path / "absent.npy", vertices=30)


def test_the_synthetic_body_is_skinned_completely_and_repeatable():
    body, same, other = (synthetic_smpl(64, seed) for seed in (0, 0, 1))
    np.testing.assert_allclose(body["weights"].sum(axis=1), 1)
    np.testing.assert_allclose(body["J_regressor"].sum(axis=1), 1)
    assert all(np.array_equal(body[key], same[key]) for key in body)
    assert not np.array_equal(body["v_template"], other["v_template"])
    with pytest.raises(ValueError, match="at least 24"):
        synthetic_smpl(vertices=23)
