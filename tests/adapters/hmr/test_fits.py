"""Static and final fits: which bodies they give to which rows, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from depthbal.adapters.hmr.fits import read_fits, with_fits
from depthbal.adapters.hmr.people import People
from depthbal.errors import DataError


def people_of(known: list[bool]) -> People:
    count = len(known)
    return People(
        files=np.array(["x.jpg"] * count),
        center=np.zeros((count, 2)),
        scale=np.ones(count),
        pose=np.full((count, 72), 7.0, np.float32),
        betas=np.full((count, 10), 2.0, np.float32),
        valid=np.array(known),
        gender=np.full(count, -1),
        group=np.full(count, "coco"),
    )


def test_static_fits_are_pose_then_shape_and_all_count(tmp_path: Path) -> None:
    table = np.random.default_rng(0).uniform(-1, 1, size=(4, 82))
    np.save(tmp_path / "coco_fits.npy", table)
    fits = read_fits(tmp_path / "coco_fits.npy", 4)
    np.testing.assert_allclose(fits["pose"], table[:, :72], rtol=1e-6)
    np.testing.assert_allclose(fits["betas"], table[:, 72:], rtol=1e-6)
    assert fits["valid"].all()


def test_a_shape_beyond_three_becomes_the_mean_shape_and_others_stay(tmp_path: Path) -> None:
    table = np.ones((3, 82))
    table[1, 75] = -3.5
    np.save(tmp_path / "coco_fits.npy", table)
    fits = read_fits(tmp_path / "coco_fits.npy", 3)
    assert fits["betas"].sum(1).tolist() == [10, 0, 10]
    assert (fits["pose"] == 1).all()


def test_final_fits_say_which_of_them_count(tmp_path: Path) -> None:
    path = tmp_path / "coco.npz"
    np.savez(path, pose=np.ones((3, 72)), betas=np.zeros((3, 10)), valid_fit=[1, 0, 1])
    assert read_fits(path, 3)["valid"].tolist() == [True, False, True]


def test_known_bodies_come_first_fits_second_and_rows_with_neither_do_not_count(
    tmp_path: Path,
) -> None:
    path = tmp_path / "coco.npz"
    np.savez(path, pose=np.ones((3, 72)), betas=np.zeros((3, 10)), valid_fit=[0, 1, 0])
    people = with_fits(people_of([True, False, False]), path)
    assert people.valid.tolist() == [True, True, False]
    assert people.pose[:, 0].tolist() == [7, 1, 1]
    assert people.betas[:, 0].tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((5, 82)), "5 rows"),
        (np.zeros((4, 85)), r"\(4, 85\)"),
        (np.zeros(82), r"\(82,\)"),
        (np.full((4, 82), np.nan), "finite"),
        (np.full((4, 82), 90.0), "'pose' goes up to 90, .*radians"),
    ],
)
def test_static_fits_that_do_not_fit_are_refused(
    tmp_path: Path, table: np.ndarray, message: str
) -> None:
    path = tmp_path / "coco_fits.npy"
    np.save(path, table)
    with pytest.raises(DataError, match=message) as caught:
        read_fits(path, 4)
    assert str(path) in str(caught.value)


def test_a_single_fit_that_ran_away_does_not_spoil_the_file(tmp_path: Path) -> None:
    table = np.ones((5, 82))
    table[2, 3] = 40.0
    np.save(tmp_path / "coco_fits.npy", table)
    assert read_fits(tmp_path / "coco_fits.npy", 5)["pose"][2, 3] == 40


def test_final_fits_without_a_key_and_missing_or_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "coco.npz"
    np.savez(path, pose=np.ones((3, 72)), betas=np.zeros((3, 10)))
    with pytest.raises(DataError, match=r"coco\.npz.*valid_fit"):
        read_fits(path, 3)
    with pytest.raises(DataError, match=r"no file .*lsp_fits\.npy"):
        read_fits(tmp_path / "lsp_fits.npy", 3)
    (tmp_path / "bad_fits.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"bad_fits\.npy"):
        read_fits(tmp_path / "bad_fits.npy", 3)
