"""Packing is done in one piece or not at all, and overwrites nothing unasked."""

import numpy as np
import pytest

from depthbal.commands import main
from depthbal.data import NYUD2DataModule, packing
from depthbal.data.packed import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import DataError, RunFolderError
from tests.data.make_files import SMALL, write_image, write_nyud2

N_TRAIN, N_TEST = 40, 3


@pytest.fixture
def source(tmp_path):
    write_nyud2(tmp_path / "src", scenes=20, per_scene=2, n_test=N_TEST)
    return tmp_path / "src"


def pack_it(source, out, **kwargs):
    pack(source, out, 24, progress=False, **kwargs)


def interrupted(*_):
    raise KeyboardInterrupt


def no_space(*_, **__):
    raise OSError("No space left on device")


@pytest.mark.parametrize(
    ("name", "stop", "error"),
    [("check_pair", interrupted, KeyboardInterrupt), ("_create", no_space, DataError)],
)
def test_a_packing_that_is_cut_off_leaves_what_was_there(
    source, tmp_path, monkeypatch, name, stop, error
):
    out = tmp_path / "out.h5"
    pack_it(source, out)
    before = out.read_bytes()
    monkeypatch.setattr(packing, name, stop)
    with pytest.raises(error, match="No space" if error is DataError else None):
        pack_it(source, out, overwrite=True)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "src"]


def test_nothing_is_overwritten_unasked_and_never_the_source(source, tmp_path):
    out = tmp_path / "out.h5"
    out.write_text("my notes")
    with pytest.raises(RunFolderError, match=r"out\.h5 exists; .*--overwrite"):
        pack_it(source, out)
    with pytest.raises(RunFolderError, match=r"is a folder; give --out"):
        pack_it(source, tmp_path, overwrite=True)
    with pytest.raises(DataError, match="is the source itself"):
        pack_it(out, out, overwrite=True)
    assert out.read_text() == "my notes"
    pack_it(source, out, overwrite=True)
    assert len(PackedPairs(out, "test")) == N_TEST


def truncate(data):
    path = data / "nyu2_train" / "scene07_out" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-30])


def wrong_unit(data):
    write_image(data / "nyu2_test" / "00001_depth.png", np.full((24, 32), 3, np.uint16))


def other_depth(data):
    write_image(data / "nyu2_train/scene03_out/1.png", np.full((24, 32), 2010, np.uint16))


def mask_of_another_set(data):
    np.save(data / "test_balanced_mask.npy", np.ones((7, 20, 28), bool))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, r"scene07_out/2\.jpg: the file is truncated"),
        (wrong_unit, r"00001_depth\.png: all 768 valid depths lie outside"),
        (other_depth, r"scene03_out/1\.png: depth is no whole number of steps of 0\.0392157 m"),
        (mask_of_another_set, r"test_balanced_mask\.npy: expected a mask of 3 test images"),
    ],
)
def test_damage_in_the_source_is_named_and_nothing_is_left(source, tmp_path, damage, words):
    damage(source / "data")
    with pytest.raises(DataError, match=words):
        pack_it(source, tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def tool(*arguments) -> int:
    return main("prepare", [str(argument) for argument in arguments])


def test_the_tool_packs_and_says_what_to_do_with_it(source, tmp_path, capsys):
    out = tmp_path / "deep" / "out.h5"
    assert tool(source, "--out", out, "--short-side", 24) == 0
    assert f"out.h5: 0 MB written; use it with --data.root {out}" in capsys.readouterr().out
    module = NYUD2DataModule(out, **SMALL, val_fraction=0.0)
    module.setup("fit")
    assert len(module.train_set) == N_TRAIN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SRC", "--step", "0"], "expected step to be positive, got 0.0"),
        (["SRC", "--scale", "0.1"], "read as 'nyud2', for which scale means nothing"),
        (["nowhere"], "nowhere does not exist; give a folder or nyu_depth_v2_labeled.mat"),
        (["."], "rgb is not a folder"),
    ],
)
def test_the_tool_reports_mistakes_in_one_line(
    source, tmp_path, capsys, monkeypatch, arguments, words
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    arguments = [source if argument == "SRC" else argument for argument in arguments]
    assert tool(*arguments, "--out", tmp_path / "out.h5") == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) == 1
