"""A packed file gives the samples of its source, bit by bit, or says why it cannot be used."""

import copy
import json
import pickle
import re

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch.utils.data import DataLoader

from depthbal.commands import main
from depthbal.data import FolderDataModule, NYUD2DataModule, packing
from depthbal.data.packed import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError, RunFolderError
from tests.data.make_files import (
    levels,
    metres,
    millimetres,
    noise_image,
    ramp_depth,
    set_up,
    write_file,
    write_folder,
    write_labelled_mat,
    write_nyud2,
)

MARKED = {"invalid": [0.0, 65535.0]}
PORTRAIT = {"crop_size": (20, 20), "depth_size": (10, 10), "val_fraction": 0.2}
SIZES = ((48, 64), (64, 48), (50, 80))


def packed(source, out, short_side=24, **settings):
    pack(source, out, short_side, **settings)
    return out


def assert_equal_samples(one, other, epochs=(0, 3)):
    for split in ("train_set", "val_set", "test_set"):
        first, second = getattr(one, split), getattr(other, split)
        assert (first is None) == (second is None)
        for index in range(len(first or [])):
            assert first.source.name(index) == second.source.name(index)
            assert first.source.group(index) == second.source.group(index)
            for epoch in epochs:
                left, right = first[epoch, index], second[epoch, index]
                assert torch.equal(left["image"], right["image"])
                assert torch.equal(left["depth"], right["depth"])
        assert first is None or len(first) == len(second) > 0


@pytest.fixture(scope="module")
def nyud2(tmp_path_factory):
    """Twice the working size, so that packing resizes; returns (folder, packed file)."""
    folder = tmp_path_factory.mktemp("nyud2")
    data = write_nyud2(folder, scenes=20, per_scene=2, n_test=4, size=(50, 66))
    rng = np.random.default_rng(0)
    for path in sorted(data.glob("nyu2_train/*/*.png")):  # so that no shift goes unnoticed
        write_file(path, rng.integers(0, 256, (50, 66), dtype=np.uint8))
    np.save(data / "test_balanced_mask.npy", rng.random((4, 20, 28)) < 0.3)
    return folder, packed(folder, folder / "packed.h5")


def test_every_sample_of_every_split_is_equal_with_and_without_augmentation(nyud2):
    source, file = (set_up(NYUD2DataModule, root, val_fraction=0.2) for root in nyud2)
    assert_equal_samples(source, file)
    assert file.train_set.source.load(0)[0].shape == (24, 32, 3)  # resized when it was packed
    assert file.quantum == source.quantum == pytest.approx(10 / 255)
    counts = [module.train_histogram().counts for module in (source, file)]
    np.testing.assert_array_equal(*counts)
    described = [json.loads(json.dumps(module.describe())) for module in (source, file)]
    for one, root in zip(described, nyud2, strict=True):
        assert one.pop("source") == str(root)
        one.pop("fingerprint")
    assert described[1] == described[0]
    masks = [np.load(module.balanced_mask_file) for module in (source, file)]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("handed_over", [copy.copy, lambda data: pickle.loads(pickle.dumps(data))])
def test_worker_processes_read_what_one_process_reads_at_the_same_time(nyud2, handed_over):
    """By fork, the file in use already, or pickled, as for processes that start anew."""
    data = set_up(NYUD2DataModule, nyud2[1], val_fraction=0.0).train_set
    alone, seen = torch.stack([data[index]["image"] for index in range(40)]), []
    for number, batch in enumerate(DataLoader(handed_over(data), batch_size=4, num_workers=3)):
        seen.append(batch["image"])
        assert torch.equal(data[number]["image"], alone[number])  # here, meanwhile
    assert torch.equal(torch.cat(seen), alone)


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(nyud2, file, tmp_path):
    again = packed(nyud2[0], tmp_path / "again.h5")
    first, second, other = (
        PackedPairs(path, "train").fingerprint() for path in (nyud2[1], again, file)
    )
    assert first == second != other


def with_holes(size, index):
    depth = millimetres(size, index)
    depth[:5, :5] = 65535  # no depth
    return depth


@pytest.mark.parametrize(("depth", "settings"), [(with_holes, MARKED), (levels, {"scale": 0.05})])
@pytest.mark.parametrize("short_side", [24, None])
def test_own_pictures_of_several_sizes_are_equal_and_split_alike(
    tmp_path, depth, settings, short_side
):
    source = write_folder(tmp_path / "own", 12, depth, per_scene=2, sizes=SIZES)
    file = packed(source, tmp_path / "own.h5", short_side, **settings)
    for working in (24,) if short_side else (24, 30):  # kept sizes leave resizing to training
        given = {**PORTRAIT, "seed": working, "test_fraction": 0.25, "short_side": working}
        one = set_up(FolderDataModule, source, **settings, **given)
        # the settings of reading are in the file, and may be repeated
        for other in (given, {**settings, **given}):
            module = set_up(FolderDataModule, file, **other)
            assert_equal_samples(one, module, epochs=(1,))
            assert module.quantum == one.quantum


def test_split_folders_stay_splits(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        write_folder(tmp_path / "own" / split, 3 + number, sizes=SIZES)
    file = packed(tmp_path / "own", tmp_path / "own.h5")
    one, module = (set_up(FolderDataModule, root, **PORTRAIT) for root in (tmp_path / "own", file))
    assert [len(data) for data in (module.train_set, module.val_set, module.test_set)] == [3, 4, 5]
    assert_equal_samples(one, module, epochs=(0,))


def test_floating_point_depth_moves_by_half_a_step_at_most(tmp_path):
    step = 0.004

    def exact(size, index):
        return np.random.default_rng(index).uniform(0.5, 9.5, size).astype(np.float32)

    source = write_folder(tmp_path / "own", 12, exact, sizes=SIZES)
    file = packed(source, tmp_path / "own.h5", step=step)
    one, module = (set_up(FolderDataModule, root, **PORTRAIT) for root in (source, file))
    errors = []
    for index in range(len(one.train_set)):
        left, right = one.train_set[0, index], module.train_set[0, index]
        assert torch.equal(left["image"], right["image"])
        assert torch.equal(left["depth"] == 0, right["depth"] == 0)
        errors.append((left["depth"] - right["depth"]).abs().max().item())
    assert step / 2.1 < max(errors) < step / 2 * 1.001


@pytest.fixture
def source(tmp_path):
    write_nyud2(tmp_path / "src", scenes=5, per_scene=2, n_test=2)
    return tmp_path / "src"


@pytest.fixture
def file(source, tmp_path):
    return packed(source, tmp_path / "out.h5")


def edited(change):
    def edit(file):
        with h5py.File(file, "r+") as content:
            change(content)

    return edit


AGAIN = r".*pack it again: depthbal prepare SOURCE --out .*out\.h5 --overwrite"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1000]), ": .*truncated file" + AGAIN),
        (lambda file: file.write_text("kitchen"), ": no packed file" + AGAIN),
        (edited(lambda f: f.attrs.modify("version", 7)), r" is .* of a version \(7\)" + AGAIN),
        (edited(lambda f: f.attrs.modify("format", "other")), " is foreign" + AGAIN),
        (edited(lambda f: f.pop("train")), ": .*'train' doesn't exist" + AGAIN),
        (
            edited(lambda f: f["test"].pop("image")),
            r": nyu2_test/00000_colors\.png.* cannot be read",
        ),
        (lambda file: file.unlink(), ": .*No such file"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason_and_the_way_out(file, damage, words):
    damage(file)
    with pytest.raises(DataError, match=rf"out\.h5{words}"):
        set_up(NYUD2DataModule, file, val_fraction=0.0)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (NYUD2DataModule, {"short_side": 22}, "packed with short_side: 24, and short_side is 22"),
        (NYUD2DataModule, {"train_csv": "a.csv"}, r"train_csv: nyu2_train\.csv, and train_csv"),
        (FolderDataModule, {}, r"was packed from .*src; read it with NYUD2DataModule"),
    ],
)
def test_settings_that_contradict_the_file_are_refused(file, kind, settings, words):
    with pytest.raises((ConfigError, DataError), match=words):
        set_up(kind, file, **settings)


# ---- packing: in one piece or not at all, and nothing is overwritten unasked ----


@pytest.mark.parametrize(
    ("stop", "error"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError("No space"), DataError)]
)
def test_a_packing_that_is_cut_off_leaves_what_was_there(
    source, file, tmp_path, monkeypatch, stop, error
):
    def cut_off(*_, **__):
        raise stop

    before = file.read_bytes()
    monkeypatch.setattr(packing, "check_pair", cut_off)
    with pytest.raises(error, match=str(stop) or None):
        packed(source, file, overwrite=True)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "src"]


def test_nothing_is_overwritten_unasked_and_never_the_source(source, tmp_path):
    out = tmp_path / "out.h5"
    out.write_text("my notes")
    with pytest.raises(RunFolderError, match=r"out\.h5 exists; .*--overwrite"):
        packed(source, out)
    with pytest.raises(DataError, match="is the source itself"):
        packed(out, out, overwrite=True)
    assert out.read_text() == "my notes"
    assert len(PackedPairs(packed(source, out, overwrite=True), "test")) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nyu2_train/scene03_out/2.jpg", b"\xff\xd8\xff cut off", ": the file is truncated"),
        (
            "nyu2_train/scene03_out/1.png",
            np.full((24, 32), 2010, np.uint16),
            r": depth of up to 2\.01 m does not go into 255 whole steps of 0\.0392157 m",
        ),
    ],
)
def test_damage_in_the_source_is_named_and_nothing_is_left(source, tmp_path, name, content, words):
    path = source / "data" / name
    write_file(path, content)
    with pytest.raises(DataError, match=name + words):
        packed(source, tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_the_tool_packs_and_reports_mistakes_in_one_line(source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()

    def tool(*arguments):
        return main("prepare", [*arguments, "--out", "deep/out.h5"])

    for arguments, words in (
        (["src", "--scale", "0.1"], "is not read with these settings: .*'scale'"),
        (["nowhere"], "nowhere does not exist; give a folder or nyu_depth_v2_labeled.mat"),
        (["empty"], "rgb is not a folder"),
    ):
        assert tool(*arguments) == 2
        message = capsys.readouterr().err
        assert len(message.splitlines()) == 1
        assert re.search(words, message)
    assert tool("src", "--short-side", "24") == 0
    assert "0 MB written; use it with --data.root deep/out.h5" in capsys.readouterr().out
    assert len(set_up(NYUD2DataModule, "deep/out.h5", val_fraction=0.0).train_set) == 10


def test_rays_are_packed_as_depth_along_the_axis(tmp_path):
    source, file = write_folder(tmp_path / "own", 12, metres, sizes=((48, 64),)), tmp_path / "p.h5"
    camera = (40.0, 40.0, 31.5, 23.5)
    line = ["--distance", "ray", "--intrinsics", *camera, "--short-side", 0]
    assert main("prepare", [str(one) for one in (source, "--out", file, *line)]) == 0
    rays = FolderDataModule(source, distance="ray", intrinsics=camera).train_source()
    depth, found = rays.load_depth(0), FolderDataModule(file).train_source().load_depth(0)
    assert np.abs(found - depth).max() <= 0.00051
    assert (metres((48, 64), 0) - depth).max() > 0.1  # in the corners


# ---- nyu_depth_v2_labeled.mat ----

COUNT = 24
IMAGES = np.stack([noise_image(24, 32, seed) for seed in range(COUNT)])
DEPTHS = np.stack(
    [ramp_depth(24, 32) + np.random.default_rng(i).random((24, 32)) for i in range(COUNT)]
).astype(np.float32)
SCENES = [f"kitchen_{index // 2:04d}" for index in range(COUNT)]
TRAIN, TEST = np.arange(3, 20), np.array([1, 2, 20, 21])  # counted from 1; three in neither


def packed_mat(folder, scenes=SCENES, content=None):
    """Pack the pictures; `content` is that of the official split."""
    settings, mat = {}, folder / "nyu_depth_v2_labeled.mat"
    write_labelled_mat(mat, IMAGES, DEPTHS, scenes)
    if content is not None:
        settings["splits"] = str(folder / "splits.mat")
        savemat(settings["splits"], content)
    out = packed(mat, folder / "out.h5", **settings)
    return PackedPairs(out, "train"), PackedPairs(out, "test")


def rows(pairs):
    return [int(pairs.name(index).rpartition(" ")[2]) - 1 for index in range(len(pairs))]


def test_the_official_split_is_followed_and_pictures_are_turned_upright(tmp_path):
    content = {"trainNdxs": TRAIN[:, None], "testNdxs": TEST[:, None].astype(np.uint16)}
    train, test = packed_mat(tmp_path, content=content)
    for pairs, expected in ((train, TRAIN - 1), (test, TEST - 1)):
        assert rows(pairs) == expected.tolist()
        for index, row in enumerate(expected):
            image, depth = pairs.load(index)
            np.testing.assert_array_equal(image, IMAGES[row])
            assert np.abs(depth - DEPTHS[row]).max() <= 0.0005 + 1e-6
            assert pairs.group(index) == SCENES[row]
    assert train.name(0) == "nyu_depth_v2_labeled.mat picture 3"
    module = set_up(NYUD2DataModule, train.path, val_fraction=0.0)
    assert (len(module.train_set), len(module.test_set)) == (17, 4)
    assert module.quantum is None


@pytest.mark.parametrize("scenes", [SCENES, None])
def test_without_the_official_split_whole_scenes_or_blocks_are_held_out(tmp_path, scenes):
    train, test = packed_mat(tmp_path, scenes)
    assert sorted(rows(train) + rows(test)) == list(range(COUNT))
    assert 8 <= len(test) <= 11  # 654 of 1449, of 24
    if scenes:
        held, kept = ({part.group(i) for i in range(len(part))} for part in (test, train))
        assert not held & kept
    else:
        assert np.count_nonzero(np.diff(rows(test)) > 1) <= 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"trainNdxs": TRAIN}, r"not the official splits\.mat .*testNdxs.*no --splits"),
        ({"trainNdxs": TRAIN, "testNdxs": [0]}, "indices from 1 to 24"),
        ({"trainNdxs": TRAIN, "testNdxs": [3]}, "none twice"),
    ],
)
def test_another_split_or_file_is_refused(tmp_path, content, words):
    with pytest.raises(DataError, match=rf"splits\.mat: .*{words}"):
        packed_mat(tmp_path, content=content)
    savemat(tmp_path / "other.mat", {"images": np.zeros(3)})
    with pytest.raises(DataError, match=r"other\.mat: not nyu_depth_v2_labeled\.mat"):
        packed(tmp_path / "other.mat", tmp_path / "out.h5")
