"""The check of a data folder: what is found, what is missing and where it comes from."""

from pathlib import Path

import numpy as np
import pytest

from depthbal.adapters.hmr.check import check_files, trainable
from depthbal.adapters.hmr.layout import TRAINING
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.errors import DataError
from depthbal.training.tool import run_tool
from tools.train_hmr import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path, rows={"coco": 20, "mpi_inf_3dhp": 20}, test_rows=10)


def test_a_complete_folder_is_ready_and_every_missing_file_has_an_origin(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool(main, ["--check", str(root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Ready for training: mpi_inf_3dhp, coco." in shown
    for group, entries in check_files(root).items():
        assert all(entry.origin for entry in entries), group
    states = {e.path: e.state for entries in check_files(root).values() for e in entries}
    assert states["dataset_extras/coco_2014_train.npz"] == "found, 20 rows"
    assert states["dataset_extras/3dpw_test.npz"] == "found, 10 rows, with poses"
    assert states["static_fits/h36m_fits.npy"] == "missing"
    assert states["smpl/SMPL_NEUTRAL.npz"] == "found"


def test_without_bodies_or_pictures_a_data_set_is_not_ready(root: Path) -> None:
    (root / TRAINING["coco"].static).unlink()
    assert trainable(check_files(root)) == ["mpi_inf_3dhp"]
    TRAINING["mpi_inf_3dhp"].features(root).unlink()
    assert trainable(check_files(root)) == []
    folder = TRAINING["mpi_inf_3dhp"].images(root)
    names = np.load(root / TRAINING["mpi_inf_3dhp"].rows)["imgname"].tolist()
    for name in names[:-1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert check_files(root)["mpi_inf_3dhp"][3].state == "19 of 20 pictures"
    assert trainable(check_files(root)) == []
    (folder / names[-1]).touch()
    assert trainable(check_files(root)) == ["mpi_inf_3dhp"]


def test_a_file_that_is_no_npz_is_shown_with_what_is_wrong(root: Path) -> None:
    (root / TRAINING["coco"].rows).write_bytes(b"nothing")
    assert "cannot read" in check_files(root)["coco"][0].state
    assert trainable(check_files(root)) == ["mpi_inf_3dhp"]


def test_what_no_training_can_do_without_is_an_error(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "J_regressor_h36m.npy").unlink()
    assert run_tool(main, ["--check", str(root)]) == 2
    assert "J_regressor_h36m.npy is missing" in capsys.readouterr().err
    with pytest.raises(DataError, match="no folder"):
        check_files(tmp_path / "nowhere")
