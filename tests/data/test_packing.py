"""Packing is done in one piece or not at all, and overwrites nothing unasked."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from depthbal.commands import main
from depthbal.data import NYUD2DataModule, packing
from depthbal.data.packed import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import DataError, RunFolderError
from tests.data.make_files import (
    noise_image,
    ramp_depth,
    set_up,
    write_image,
    write_labelled_mat,
    write_nyud2,
)


@pytest.fixture
def source(tmp_path):
    write_nyud2(tmp_path / "src", scenes=20, per_scene=2, n_test=3)
    return tmp_path / "src"


def pack_it(source, out, **settings):
    pack(source, out, 24, progress=False, **settings)
    return {split: PackedPairs(out, split) for split in ("train", "test")}


@pytest.mark.parametrize(
    ("name", "stop", "error"),
    [
        ("check_pair", KeyboardInterrupt(), KeyboardInterrupt),
        ("_create", OSError("No space"), DataError),
    ],
)
def test_a_packing_that_is_cut_off_leaves_what_was_there(
    source, tmp_path, monkeypatch, name, stop, error
):
    def cut_off(*_, **__):
        raise stop

    out = tmp_path / "out.h5"
    pack_it(source, out)
    before = out.read_bytes()
    monkeypatch.setattr(packing, name, cut_off)
    with pytest.raises(error, match=str(stop) or None):
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
    assert len(pack_it(source, out, overwrite=True)["test"]) == 3


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("nyu2_train/scene07_out/2.jpg", b"\xff\xd8\xff cut off", ": the file is truncated"),
        (
            "nyu2_test/00001_depth.png",
            np.full((24, 32), 3, np.uint16),
            ": all 768 valid depths lie outside",
        ),
        (
            "nyu2_train/scene03_out/1.png",
            np.full((24, 32), 2010, np.uint16),
            r": depth is no whole number of steps of 0\.0392157 m",
        ),
        (
            "test_balanced_mask.npy",
            np.ones((7, 20, 28), bool),
            ": expected a mask of 3 test images",
        ),
    ],
)
def test_damage_in_the_source_is_named_and_nothing_is_left(source, tmp_path, file, content, words):
    path = source / "data" / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        write_image(path, content)
    with pytest.raises(DataError, match=file + words):
        pack_it(source, tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def tool(*arguments) -> int:
    return main("prepare", [str(argument) for argument in arguments])


def test_the_tool_packs_and_says_what_to_do_with_it(source, tmp_path, capsys):
    out = tmp_path / "deep" / "out.h5"
    assert tool(source, "--out", out, "--short-side", 24) == 0
    assert f"out.h5: 0 MB written; use it with --data.root {out}" in capsys.readouterr().out
    assert len(set_up(NYUD2DataModule, out, val_fraction=0.0).train_set) == 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["src", "--step", "0"], "expected step to be positive, got 0.0"),
        (["src", "--scale", "0.1"], "read as 'nyud2', for which scale means nothing"),
        (["nowhere"], "nowhere does not exist; give a folder or nyu_depth_v2_labeled.mat"),
        (["empty"], "rgb is not a folder"),
    ],
)
def test_the_tool_reports_mistakes_in_one_line(
    source, tmp_path, capsys, monkeypatch, arguments, words
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tool(*arguments, "--out", "out.h5") == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) == 1


# ---- nyu_depth_v2_labeled.mat ----

COUNT = 24
IMAGES = np.stack([noise_image(24, 32, seed) for seed in range(COUNT)])
DEPTHS = np.stack(
    [ramp_depth(24, 32) + np.random.default_rng(i).random((24, 32)) for i in range(COUNT)]
).astype(np.float32)
SCENES = [f"kitchen_{index // 2:04d}" for index in range(COUNT)]
TRAIN, TEST = np.arange(3, 20), np.array([1, 2, 20, 21])  # counted from 1; three in neither


@pytest.fixture
def mat(tmp_path):
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    write_labelled_mat(path, IMAGES, DEPTHS, SCENES)
    return path


def rows(pairs):
    return [int(pairs.name(index).rpartition(" ")[2]) - 1 for index in range(len(pairs))]


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_the_official_split_is_followed_and_pictures_are_turned_upright(mat, version):
    splits, out = mat.with_name("splits.mat"), mat.with_name("out.h5")
    if version == "7.3":
        with h5py.File(splits, "w") as file:
            file["trainNdxs"], file["testNdxs"] = TRAIN[None].astype(float), TEST[None]
    else:
        savemat(splits, {"trainNdxs": TRAIN[:, None], "testNdxs": TEST[:, None].astype(np.uint16)})
    pairs = pack_it(mat, out, splits=str(splits))
    for split, expected in (("train", TRAIN - 1), ("test", TEST - 1)):
        assert rows(pairs[split]) == expected.tolist()
        for index, row in enumerate(expected):
            image, depth = pairs[split].load(index)
            np.testing.assert_array_equal(image, IMAGES[row])
            assert np.abs(depth - DEPTHS[row]).max() <= 0.0005 + 1e-6
            assert pairs[split].group(index) == SCENES[row]
    assert pairs["train"].name(0) == "nyu_depth_v2_labeled.mat picture 3"
    module = set_up(NYUD2DataModule, out, val_fraction=0.0)
    assert (len(module.train_set), len(module.test_set)) == (17, 4)
    assert module.quantum is None


@pytest.mark.parametrize("scenes", [SCENES, None])
def test_without_the_official_split_whole_scenes_or_blocks_are_held_out(mat, scenes):
    write_labelled_mat(mat, IMAGES, DEPTHS, scenes)
    train, test = pack_it(mat, mat.with_name("out.h5")).values()
    assert sorted(rows(train) + rows(test)) == list(range(COUNT))
    assert 8 <= len(test) <= 11  # 654 of 1449, of 24
    if scenes:
        held, kept = ({part.group(i) for i in range(len(part))} for part in (test, train))
        assert not held & kept
    else:
        assert np.count_nonzero(np.diff(rows(test)) > 1) <= 1


def pictures(images=(2, 3, 8, 6), depths=(2, 8, 6), dtype=np.uint8):
    return {"images": np.zeros(images, dtype), "depths": np.zeros(depths)}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "got None and None"),
        (pictures(images=(2, 8, 6, 3)), "expected images"),
        (pictures(depths=(3, 8, 6)), "expected images"),
        (pictures(dtype=float), "expected images uint8"),
        (pictures() | {"scenes": np.zeros((1, 2))}, "scenes are not references to strings"),
        (None, r"not a readable MATLAB 7\.3 file"),
    ],
)
def test_another_file_is_refused(tmp_path, arrays, words):
    path = tmp_path / "other.mat"
    if arrays is None:
        savemat(path, {"images": np.zeros(3)})
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    with pytest.raises(DataError, match=rf"other\.mat: .*{words}"):
        pack_it(path, tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"trainNdxs": TRAIN}, r"not the official splits\.mat .*testNdxs.*no --splits"),
        ({"trainNdxs": TRAIN, "testNdxs": [25]}, "indices from 1 to 24"),
        ({"trainNdxs": TRAIN, "testNdxs": [0]}, "indices from 1 to 24"),
        ({"trainNdxs": TRAIN, "testNdxs": [3]}, "twice or in both"),
        ("x" * 200, r"not the official splits\.mat"),
        (None, r"not the official splits\.mat .*No such file"),
    ],
)
def test_another_split_is_refused(mat, content, words):
    splits = mat.with_name("splits.mat")
    if isinstance(content, str):
        splits.write_text(content)
    elif content is not None:
        savemat(splits, content)
    with pytest.raises(DataError, match=rf"splits\.mat: .*{words}"):
        pack_it(mat, mat.with_name("out.h5"), splits=str(splits))
