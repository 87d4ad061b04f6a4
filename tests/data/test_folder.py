import re
import warnings

import numpy as np
import pytest

from depthbal.data import FolderDataModule
from depthbal.errors import DataError
from tests.data.make_files import (
    SMALL,
    levels,
    metres,
    millimetres,
    set_up,
    write_file,
    write_folder,
)


def tree(root, files):
    for file in files.split():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


HIDDEN = "rgb/.thumbs/1.jpg depth/.thumbs/1.png rgb/._1.jpg depth/._1.png color/.DS_Store"


@pytest.mark.parametrize(
    ("rgb", "depth", "pairs", "single"),
    [
        ("rgb", "depth", "rgb/a/1.jpg depth/a/1.png rgb/b/1.PNG depth/b/1.npy", ""),
        ("rgb", "depth", "rgb/1.50.jpg depth/1.50.png rgb/1.51.jpg depth/1.51.png", ""),
        ("rgb", "depth", "rgb/1.jpg depth/1.png", "rgb/2.jpg depth/3.png"),
        ("*_colors.png", "*_depth.png", "1_colors.png 1_depth.png 2_colors.png 2_depth.png", ""),
        ("**/*_rgb.png", "**/*_d.png", "1_rgb.png 1_d.png t/u/1_rgb.png t/u/1_d.png", ""),
        ("./rgb/", "./depth", "rgb/1.jpg depth/1.png", ""),
        ("s/*/rgb/*.jpg", "s/*/d/*.png", "s/a/rgb/1.jpg s/a/d/1.png", "s/b/rgb/1.jpg"),
        ("color/*", "range/frame*", "color/7.jpg range/frame7.npy", ""),
        ("*_colors.png", "*_depth.png", "9_colors.png 9_depth.png 10_colors.png 10_depth.png", ""),
        ("rgb", "depth", "rgb/K\u00fcche.jpg depth/Ku\u0308che.png", ""),  # as a Mac decomposes it
    ],
)
def test_files_are_paired_by_what_folder_or_wildcards_leave_open(
    tmp_path, rgb, depth, pairs, single
):
    tree(tmp_path, f"{pairs} {single} {HIDDEN}")
    files = pairs.split()
    for file in files[1::2]:
        path, depth_map = tmp_path / file, np.full((4, 4), 2000, np.uint16)
        np.save(path, depth_map) if path.suffix == ".npy" else write_file(path, depth_map)
    module = FolderDataModule(tmp_path, rgb=rgb, depth=depth)
    with warnings.catch_warnings(record=True) as caught:
        found = module.files("whole").pairs
    assert found == list(zip(files[::2], files[1::2], strict=True))
    assert all(f"no partner and are left out (the first: {single[:5]}" in str(w) for w in caught)
    assert len(caught) == bool(single)


PAIR = "rgb/1.jpg depth/1.png"


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        ("rgb/1.jpg depth/readme.txt", {}, "no file matches 'depth' (endings: .png, .npy, .npz"),
        ("images/1.jpg depth/1.png .git/x", {}, "rgb is not a folder, and --data.rgb is 'rgb'; gi"),
        ("rgb/1_colors.jpg depth/1_depth.png", {}, "1_colors.jpg and 1 files such as depth/1_dep"),
        ("rgb/1.jpg rgb/1.png depth/1.png", {}, "rgb/1.jpg and rgb/1.png have the same stem"),
        (PAIR, {"rgb": "images"}, "images is not a folder, and --data.rgb"),
        (PAIR, {"depth": "depths/*.png"}, "depths is not a folder, and --data.depth"),
        (PAIR, {"root": "nowhere"}, "nowhere/rgb is not a folder"),
    ],
)
def test_a_tree_that_cannot_be_paired_is_explained_before_a_network_is_built(
    tmp_path, monkeypatch, files, settings, words
):
    monkeypatch.chdir(tmp_path)
    tree(tmp_path, files)
    with pytest.raises(DataError, match=re.escape(words)):
        FolderDataModule(**{"root": ".", **settings}).check_root()


def parts_of(module):
    return [module.train_set, module.val_set, module.test_set]


def names(dataset):
    return {dataset.source.name(i) for i in range(len(dataset))}


@pytest.mark.parametrize(
    ("depth", "scale", "tolerance"),
    [(millimetres, None, 5.1e-4), (metres, None, 0), (levels, 0.05, 0.026)],
)
def test_depth_of_every_kind_arrives_in_metres(tmp_path, depth, scale, tolerance):
    module = set_up(FolderDataModule, write_folder(tmp_path, depth=depth), scale=scale)
    for dataset in parts_of(module):
        for index in range(len(dataset)):
            number = int(dataset.source.name(index).split("/")[1].split(".")[0])
            found = dataset.source.load(index)[1]
            np.testing.assert_allclose(found, metres((24, 32), number), atol=tolerance)
    assert module.quantum == scale
    assert module.benchmark is None


def test_one_set_is_divided_into_three_without_overlap(tmp_path):
    write_folder(tmp_path, 40)
    module = set_up(FolderDataModule, tmp_path, val_fraction=0.1, test_fraction=0.2)
    parts = [names(dataset) for dataset in parts_of(module)]
    assert [len(part) for part in parts] == [29, 3, 8]
    assert len(set.union(*parts)) == 40
    alone = FolderDataModule(tmp_path, **SMALL, test_fraction=0.2)
    alone.setup("test")
    assert names(alone.test_set) == parts[2]
    assert alone.train_set is None


def test_subfolders_are_scenes_that_no_split_cuts(tmp_path):
    write_folder(tmp_path, 60, per_scene=4)
    module = set_up(FolderDataModule, tmp_path, val_fraction=0.2, test_fraction=0.2)
    parts = [{part.source.group(i) for i in range(len(part))} for part in parts_of(module)]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 15


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 5.03])
def test_what_can_be_no_depth_is_none_and_other_values_where_they_are_named(tmp_path, value):
    def marked(size, index):
        depth = metres(size, index).copy()
        depth[:5] = value
        return depth

    write_folder(tmp_path, depth=marked)
    for invalid in ([0.0], [value]):
        module = set_up(FolderDataModule, tmp_path, invalid=invalid)
        for found in (module.train_set.source.load(0)[1], module.train_set.source.load_depth(0)):
            assert found[:5].any() == (value == 5.03 and invalid == [0.0])
            assert found[5:].all()


def test_pictures_of_equal_names_in_two_splits_are_two_pictures(tmp_path):
    for split in ("train", "val", "test"):
        write_folder(tmp_path / split, 1)
    data = FolderDataModule(str(tmp_path))
    names = [data.pairs(split).name(0) for split in ("val", "test")]
    assert names == [f"{split}/rgb/000.jpg with depth/000.png" for split in ("val", "test")]
