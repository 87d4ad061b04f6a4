"""A packed file gives the samples of its source, bit by bit, or says why it cannot be used."""

import json

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from depthbal.data import FolderDataModule, NYUD2DataModule
from depthbal.data.packed import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import (
    levels,
    millimetres,
    set_up,
    write_folder,
    write_image,
    write_nyud2,
)

MARKED = {"invalid": [0.0, 65535.0]}
PORTRAIT = {"crop_size": (20, 20), "depth_size": (10, 10), "val_fraction": 0.2}
SIZES = ((48, 64), (64, 48), (50, 80))


def packed(source, out, short_side=24, **settings):
    pack(source, out, short_side, progress=False, **settings)
    return out


def assert_equal_samples(one, other, epochs=(0, 3)):
    for split in ("train_set", "val_set", "test_set"):
        first, second = getattr(one, split), getattr(other, split)
        assert (first is None) == (second is None)
        if first is None:
            continue
        assert len(first) == len(second) > 0
        for index in range(len(first)):
            assert first.source.name(index) == second.source.name(index)
            assert first.source.group(index) == second.source.group(index)
            for epoch in epochs:
                left, right = first[epoch, index], second[epoch, index]
                assert torch.equal(left["image"], right["image"])
                assert torch.equal(left["depth"], right["depth"])


@pytest.fixture(scope="module")
def nyud2(tmp_path_factory):
    """Twice the working size, so that packing resizes; returns (folder, packed file)."""
    folder = tmp_path_factory.mktemp("nyud2")
    data = write_nyud2(folder, scenes=20, per_scene=2, n_test=4, size=(50, 66))
    rng = np.random.default_rng(0)
    for path in sorted(data.glob("nyu2_train/*/*.png")):  # so that no shift goes unnoticed
        write_image(path, rng.integers(0, 256, (50, 66), dtype=np.uint8))
    np.save(data / "test_balanced_mask.npy", rng.random((4, 20, 28)) < 0.3)
    return folder, packed(folder, folder / "packed.h5")


def test_every_sample_of_every_split_is_equal_with_and_without_augmentation(nyud2):
    source, file = (set_up(NYUD2DataModule, root, val_fraction=0.2) for root in nyud2)
    assert_equal_samples(source, file)
    assert file.train_set.source.load(0)[0].shape == (24, 32, 3)  # resized when it was packed
    assert file.quantum == source.quantum == pytest.approx(10 / 255)
    counts = [module.train_histogram(progress=False).counts for module in (source, file)]
    np.testing.assert_array_equal(*counts)
    described = [module.describe() for module in (source, file)]
    for one, root in zip(described, nyud2, strict=True):
        assert one.pop("source") == str(root)
        one.pop("fingerprint")
    assert json.loads(json.dumps(described[1])) == described[0]


# A spawned process imports everything anew, which takes seconds: one is enough.
@pytest.mark.parametrize(("context", "workers"), [("fork", 3), ("spawn", 1)])
def test_worker_processes_read_what_one_process_reads_at_the_same_time(nyud2, context, workers):
    module = set_up(NYUD2DataModule, nyud2[1], val_fraction=0.0)
    alone = torch.stack([module.train_set[index]["image"] for index in range(40)])
    loader = DataLoader(  # the file has been in use before the processes start
        module.train_set, batch_size=4, num_workers=workers, multiprocessing_context=context
    )
    seen = []
    for number, batch in enumerate(loader):
        seen.append(batch["image"])
        assert torch.equal(module.train_set[number]["image"], alone[number])  # here, meanwhile
    assert torch.equal(torch.cat(seen), alone)


def test_a_moved_file_keeps_its_fingerprint_and_other_content_has_another(nyud2, tmp_path):
    (tmp_path / "copy.h5").write_bytes(nyud2[1].read_bytes())
    packed(nyud2[0], tmp_path / "again.h5")
    data = write_nyud2(tmp_path / "other", scenes=20, per_scene=2, n_test=4, size=(50, 66))
    packed(data, tmp_path / "other.h5")
    first, copy, again, other = (
        PackedPairs(path, "train").fingerprint()
        for path in (nyud2[1], *(tmp_path / f"{name}.h5" for name in ("copy", "again", "other")))
    )
    assert first == copy == again != other


def test_the_official_mask_comes_with_the_file(nyud2):
    expected = np.load(nyud2[0] / "data" / "test_balanced_mask.npy")
    for _ in range(2):  # extracted, then found
        mask = np.load(set_up(NYUD2DataModule, nyud2[1]).balanced_mask_file)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)


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


@pytest.mark.parametrize("step", [0.001, 0.004])
def test_floating_point_depth_moves_by_half_a_step_at_most(tmp_path, step):
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
def file(tmp_path):
    write_nyud2(tmp_path / "src", scenes=5, per_scene=2, n_test=2)
    return packed(tmp_path / "src", tmp_path / "out.h5")


def edited(change):
    def edit(file):
        with h5py.File(file, "r+") as content:
            change(content)

    return edit


@edited
def as_version_1(content):
    """Give a file what depthbal 0.1 wrote: one more chunk layout, checksums, marks, histograms."""
    content.attrs["version"], content.attrs["complete"] = 1, np.uint8(1)
    content.attrs["fingerprints"] = json.dumps({"train": "", "test": ""})
    content["histograms"] = np.zeros(1 << 10, np.uint8)
    for split in ("train", "test"):
        for name, dtype in (("checksum", np.uint32), ("done", np.uint8)):
            content[split][name] = np.ones(len(content[split]["size"]), dtype)


def test_a_file_of_version_1_is_read(file):
    copy = file.with_name("copy.h5")
    copy.write_bytes(file.read_bytes())
    as_version_1(copy)
    one, other = (set_up(NYUD2DataModule, root, val_fraction=0.0) for root in (copy, file))
    assert_equal_samples(one, other)


def garble(file):
    content = file.read_bytes()
    assert b"scene00_out" in content
    file.write_bytes(content.replace(b"scene00_out", b"\xfe" * 11))


AGAIN = r".*pack it again: depthbal prepare SOURCE --out .*out\.h5 --overwrite"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda file: file.write_bytes(file.read_bytes()[:-1000]),
            ": .*damaged .*truncated file" + AGAIN,
        ),
        (lambda file: file.write_bytes(b""), ": no packed file" + AGAIN),
        (lambda file: file.write_text("kitchen"), ": no packed file" + AGAIN),
        (garble, ": .*damaged .*utf-8" + AGAIN),
        (edited(lambda f: f.attrs.modify("version", 7)), r" is .* of a version \(7\)" + AGAIN),
        (edited(lambda f: f.attrs.create("complete", np.uint8(0))), " is unfinished" + AGAIN),
        (edited(lambda f: f.attrs.modify("format", "other")), " is an HDF5 file, but not one wri"),
        (edited(lambda f: f.pop("train")), r" has no train split \(packed: test\)"),
        (edited(lambda f: f["test"].pop("name")), ":" + AGAIN),
        (
            edited(lambda f: f["test"].pop("image")),
            r": nyu2_test/00000_colors\.png.* cannot be read",
        ),
        (lambda file: file.unlink(), " does not exist"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason_and_the_way_out(file, damage, words):
    damage(file)
    with pytest.raises(DataError, match=rf"out\.h5{words}"):
        set_up(NYUD2DataModule, file, val_fraction=0.0)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (NYUD2DataModule, {"short_side": 22}, "pictures of short side 24, and short_side is 22"),
        (NYUD2DataModule, {"train_csv": "a.csv"}, r"train_csv: nyu2_train\.csv, and train_csv"),
        (FolderDataModule, {}, r"was packed from .*src; read it with NYUD2DataModule"),
    ],
)
def test_settings_that_contradict_the_file_are_refused(file, kind, settings, words):
    with pytest.raises((ConfigError, DataError), match=words):
        set_up(kind, file, **settings)
