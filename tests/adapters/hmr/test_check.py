"""The check of a data folder: what is found, where it comes from, and what a training can use."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depthbal.adapters.hmr.backbone import ResNet50Features
from depthbal.adapters.hmr.check import check_files
from depthbal.adapters.hmr.layout import DATA_SETS, TEST, TRAINING
from depthbal.adapters.hmr.readiness import readiness
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.errors import DataError
from depthbal.training.tool import run_tool
from tools.train_hmr import CONFIGS, main

ROWS = {"coco": 20, "mpi_inf_3dhp": 20}
WIDTH = "--model.model.init_args.features 64"
MPI, COCO = TRAINING["mpi_inf_3dhp"], TRAINING["coco"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path, rows=ROWS, test_rows=10)


def with_pictures(root: Path) -> None:
    """Give the data sets empty pictures in place of features."""
    for name in (*ROWS, TEST.name):
        data = DATA_SETS[name]
        data.features(root).unlink()
        for file in np.load(root / data.rows)["imgname"].tolist():
            path = data.images(root) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def final_fits(root: Path) -> None:
    """Give COCO final fits in place of static ones."""
    fits = np.load(root / COCO.static)
    (root / "spin_fits").mkdir()
    arrays = {"pose": fits[:, :72], "betas": fits[:, 72:], "valid_fit": np.ones(len(fits))}
    np.savez(root / COCO.final, **arrays)
    (root / COCO.static).unlink()


def test_a_complete_folder_is_ready_and_every_file_has_an_origin(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool(main, ["--check", str(root)]) == 0
    assert f"Ready for training with {WIDTH}: mpi_inf_3dhp, coco\n" in capsys.readouterr().out
    for group, entries in check_files(root).items():
        assert all(entry.origin for entry in entries), group
    states = {e.path: e.state for entries in check_files(root).values() for e in entries}
    assert states["dataset_extras/coco_2014_train.npz"] == "found, 20 rows"
    assert states["dataset_extras/3dpw_test.npz"] == "found, 10 rows, with poses"
    assert states["static_fits/h36m_fits.npy"] == "missing"
    assert states["smpl/SMPL_NEUTRAL.npz"] == "found"
    assert states["features/coco_2014_train.npy"] == "found, 64 numbers per picture"


def test_published_widths_need_no_setting(root: Path) -> None:
    for name in (*ROWS, TEST.name):
        path = DATA_SETS[name].features(root)
        np.save(path, np.zeros((len(np.load(path)), 2048), np.float32))
    assert readiness(root).ways == [(["mpi_inf_3dhp", "coco"], [])]


def no_static_fits_of_3dhp(root: Path) -> None:
    final_fits(root)
    (root / MPI.rows).unlink()


def short_fits(root: Path) -> None:
    np.save(root / COCO.static, np.zeros((19, 82)))


@pytest.mark.parametrize(
    ("change", "ready", "settings"),
    [
        (no_static_fits_of_3dhp, ["coco"], ["--data.fits final", WIDTH]),
        (
            lambda root: (root / "smpl" / "SMPL_MALE.npz").unlink(),
            ["mpi_inf_3dhp", "coco"],
            ["--data.ground_truth neutral", WIDTH],
        ),
        (short_fits, ["mpi_inf_3dhp"], [WIDTH, "--data.datasets [mpi_inf_3dhp]"]),
        (lambda root: (root / COCO.static).unlink(), ["mpi_inf_3dhp"], [WIDTH]),
        (
            lambda root: COCO.features(root).unlink(),
            ["mpi_inf_3dhp"],
            [WIDTH, "--data.datasets [mpi_inf_3dhp]"],
        ),
    ],
)
def test_the_settings_under_which_a_training_starts_are_named_and_do_start_it(
    root: Path, change: Callable[[Path], Any], ready: list[str], settings: list[str]
) -> None:
    change(root)
    assert readiness(root).ways == [(ready, settings)]
    common = ["--data.root", str(root), "--data.num_workers", "0", "--trainer.fast_dev_run", "1"]
    common += ["--config", str(CONFIGS / "mse.yaml"), "--out", str(root / "run")]
    given = [word for setting in settings for word in setting.split(" ", 1)]
    assert run_tool(main, [*common, *given]) == 0
    shutil.rmtree(root / "run", ignore_errors=True)
    assert run_tool(main, [*common, *without_one(given)]) == 2


def without_one(given: list[str]) -> list[str]:
    """Return the words of a command line without its last setting but for the width."""
    pairs = list(zip(given[::2], given[1::2], strict=True))
    at = max((i for i, (name, _) in enumerate(pairs) if "features" not in name), default=0)
    return [word for i, pair in enumerate(pairs) if i != at for word in pair]


def test_pictures_need_a_checkpoint_and_all_of_them(root: Path) -> None:
    with_pictures(root)
    found = readiness(root)
    assert found.ways == []
    assert "init_args.weights" in found.problems["3dpw without weights"]
    checkpoint = root / "model_checkpoint.pt"
    torch.save({"model": ResNet50Features().state_dict()}, checkpoint)
    setting = f"--model.model.init_args.weights {checkpoint}"
    assert readiness(root).ways == [(["mpi_inf_3dhp", "coco"], [setting])]
    next(COCO.images(root).rglob("*.jpg")).unlink()
    assert check_files(root)["coco"][3].state == "19 of 20 pictures"
    chosen = "--data.datasets [mpi_inf_3dhp]"
    assert readiness(root).ways == [(["mpi_inf_3dhp"], [setting, chosen])]


@pytest.mark.parametrize(
    ("file", "state"),
    [
        (COCO.rows, "cannot read"),
        (COCO.static, "cannot read"),
        ("smpl/SMPL_MALE.npz", "cannot read"),
        ("smpl_mean_params.npz", "cannot read"),
        ("model_checkpoint.pt", "is damaged"),
        ("features/coco_2014_train.npy", "cannot read"),
    ],
)
def test_a_damaged_file_is_shown_with_what_is_wrong(root: Path, file: str, state: str) -> None:
    (root / file).write_bytes(b"nothing")
    states = {e.path: e.state for entries in check_files(root).values() for e in entries}
    assert state in states[file]


def test_what_no_training_can_do_without_is_an_error(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "J_regressor_h36m.npy").unlink()
    assert run_tool(main, ["--check", str(root)]) == 2
    assert "J_regressor_h36m.npy" in capsys.readouterr().err
    (root / TEST.rows).unlink()
    assert "3dpw_test.npz" in readiness(root).problems[TEST.name]
    with pytest.raises(DataError, match="no folder"):
        check_files(tmp_path / "nowhere")
