"""A packed file gives the samples of its source, bit by bit, or says why it cannot be used."""

import json
import multiprocessing
import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from depthbal.data import FolderDataModule, NYUD2DataModule
from depthbal.data.packed import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import SMALL, noise_image, ramp_depth, write_image, write_nyud2
from tests.shared import SHARED, needs_shared

MARKED = {"invalid": [0.0, 65535.0]}
PORTRAIT = {"crop_size": (20, 20), "depth_size": (10, 10)}


def packed(source: Path, out: Path, short_side: int | None = 24, **settings) -> Path:
    pack(source, out, short_side, progress=False, **settings)
    return out


def set_up(kind, root, **kwargs):
    module = kind(root, **{**SMALL, "val_fraction": 0.2, **kwargs})
    module.setup("fit")
    return module


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
    source, file = (set_up(NYUD2DataModule, root) for root in nyud2)
    assert_equal_samples(source, file)
    raw = file.train_set.source.load(0)
    assert raw[0].shape == (24, 32, 3)  # resized once, when it was packed
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


def _own_file(pairs, told):
    pairs.load(0)
    told.send(pairs._opened[0])


def test_a_forked_process_opens_the_file_itself(nyud2):
    pairs = PackedPairs(nyud2[1], "train")
    pairs.load(0)
    inherited = pairs._opened
    context = multiprocessing.get_context("fork")
    hears, told = context.Pipe(duplex=False)
    process = context.Process(target=_own_file, args=(pairs, told))
    process.start()
    assert hears.poll(60)
    assert hears.recv() == process.pid != inherited[0]
    process.join(60)
    pairs.load(1)
    assert pairs._opened is inherited


def test_a_moved_file_keeps_its_fingerprint_and_other_content_has_another(nyud2, tmp_path):
    first = PackedPairs(nyud2[1], "train").fingerprint()
    copy = tmp_path / "elsewhere.h5"
    copy.write_bytes(nyud2[1].read_bytes())
    assert PackedPairs(copy, "train").fingerprint() == first
    packed(nyud2[0], tmp_path / "again.h5")
    assert PackedPairs(tmp_path / "again.h5", "train").fingerprint() == first
    data = write_nyud2(tmp_path / "other", scenes=20, per_scene=2, n_test=4, size=(50, 66))
    assert PackedPairs(packed(data, tmp_path / "other.h5"), "train").fingerprint() != first


def test_the_official_mask_comes_with_the_file(nyud2):
    source, file = (set_up(NYUD2DataModule, root) for root in nyud2)
    expected = np.load(source.balanced_mask_file)
    assert file.balanced_mask_file != source.balanced_mask_file
    for module in (file, set_up(NYUD2DataModule, nyud2[1])):  # extracted, then found
        mask = np.load(module.balanced_mask_file)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)


def write_folder(root: Path, depth, suffix: str = "png", count: int = 12) -> Path:
    """Write pictures of three sizes, upright ones among them, in scenes of two."""
    for index in range(count):
        size = [(48, 64), (64, 48), (50, 80)][index % 3]
        stem = f"scene{index // 2:02d}/{index}"
        write_image(root / f"rgb/{stem}.png", noise_image(*size, seed=index))
        path = root / f"depth/{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        array = depth(size, index)
        np.save(path, array) if suffix == "npy" else write_image(path, array)
    return root


def millimetres(size, index):
    depth = np.rint(ramp_depth(*size, index) * 1000).astype(np.uint16)
    depth[:5, :5] = 65535  # no depth
    return depth


def levels(size, index):
    return np.rint(ramp_depth(*size, index) * 20).astype(np.uint8)


@pytest.mark.parametrize(("depth", "settings"), [(millimetres, MARKED), (levels, {"scale": 0.05})])
@pytest.mark.parametrize("short_side", [24, None])
def test_own_pictures_of_several_sizes_are_equal_and_split_alike(
    tmp_path, depth, settings, short_side
):
    source = write_folder(tmp_path / "own", depth)
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
        write_folder(tmp_path / "own" / split, millimetres, count=3 + number)
    file = packed(tmp_path / "own", tmp_path / "own.h5", **MARKED)
    one = set_up(FolderDataModule, tmp_path / "own", **MARKED, **PORTRAIT)
    module = set_up(FolderDataModule, file, **PORTRAIT)
    assert [len(data) for data in (module.train_set, module.val_set, module.test_set)] == [3, 4, 5]
    assert_equal_samples(one, module, epochs=(0,))


@pytest.mark.parametrize("step", [0.001, 0.004])
def test_floating_point_depth_moves_by_half_a_step_at_most(tmp_path, step):
    def exact(size, index):
        return np.random.default_rng(index).uniform(0.5, 9.5, size).astype(np.float32)

    source = write_folder(tmp_path / "own", exact, "npy")
    file = packed(source, tmp_path / "own.h5", step=step)
    one, module = (set_up(FolderDataModule, root, **PORTRAIT) for root in (source, file))
    errors = []
    for index in range(len(one.train_set)):
        left, right = one.train_set[0, index], module.train_set[0, index]
        assert torch.equal(left["image"], right["image"])
        assert torch.equal(left["depth"] == 0, right["depth"] == 0)
        errors.append((left["depth"] - right["depth"]).abs().max().item())
    assert step / 2.1 < max(errors) < step / 2 * 1.001


@needs_shared
def test_real_pictures_are_equal(tmp_path):
    data = tmp_path / "root" / "data"
    data.mkdir(parents=True)
    for name in ("nyu2_train", "nyu2_test"):
        rows = (SHARED / "nyuv2" / "data" / f"{name}.csv").read_text().splitlines()
        (data / f"{name}.csv").write_text("\n".join(rows[:: len(rows) // 6]) + "\n")
        (data / name).symlink_to(SHARED / "nyuv2" / "data" / name)
    file = packed(tmp_path / "root", tmp_path / "real.h5", 240)
    half = packed(tmp_path / "root", tmp_path / "half.h5", 120)  # images are stored at 240
    one = NYUD2DataModule(tmp_path / "root", num_workers=0)
    other = NYUD2DataModule(file, num_workers=0)
    for module in (one, other):
        module.setup("fit")
    assert_equal_samples(one, other)
    image, depth = NYUD2DataModule(half, short_side=120).train_source().load(2)
    path = data / one.train_set.source.source.pairs[2][0]
    decoded = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert image.shape == (120, 160, 3)
    np.testing.assert_array_equal(image, cv2.resize(decoded, (160, 120)))
    assert np.isin(depth, one.train_set.source.source.load(2)[1]).all()


# ---- files that cannot be used as they are ----


@pytest.fixture
def file(tmp_path):
    write_nyud2(tmp_path / "src", scenes=5, per_scene=2, n_test=2)
    return packed(tmp_path / "src", tmp_path / "out.h5")


def edit(file, change):
    with h5py.File(file, "r+") as content:
        change(content)


def as_version_1(content):
    """Give a file what depthbal 0.1 wrote: one more chunk layout, checksums, marks, histograms."""
    content.attrs["version"], content.attrs["complete"] = 1, np.uint8(1)
    content.attrs["fingerprints"] = json.dumps({"train": "", "test": ""})
    content["histograms"] = np.zeros(1 << 10, np.uint8)
    for split in ("train", "test"):
        for name, dtype in (("checksum", np.uint32), ("done", np.uint8)):
            content[split][name] = np.ones(len(content[split]["size"]), dtype)


def test_a_file_of_version_1_is_read(file):
    expected = set_up(NYUD2DataModule, file, val_fraction=0.0)
    copy = file.with_name("copy.h5")
    copy.write_bytes(file.read_bytes())
    edit(copy, as_version_1)
    assert_equal_samples(set_up(NYUD2DataModule, copy, val_fraction=0.0), expected)


def cut(file):
    file.write_bytes(file.read_bytes()[:-1000])


def garble(file):
    content = file.read_bytes()
    assert b"scene00_out" in content
    file.write_bytes(content.replace(b"scene00_out", b"\xfe" * 11))


AGAIN = r"pack it again: depthbal prepare SOURCE --out .*out\.h5 --overwrite"
DAMAGES = {
    "truncated": (cut, rf"out\.h5: .* damaged .*truncated file.*{AGAIN}"),
    "empty": (lambda file: file.write_bytes(b""), rf"out\.h5: no packed file.*{AGAIN}"),
    "text": (lambda file: file.write_text("kitchen"), rf"out\.h5: no packed file.*{AGAIN}"),
    "garbled": (garble, rf"out\.h5: .*damaged .*utf-8.*{AGAIN}"),
    "later version": (
        lambda file: edit(file, lambda content: content.attrs.modify("version", 7)),
        rf"out\.h5 is unfinished, or of a version \(7\) .*{AGAIN}",
    ),
    "unfinished, of 0.1": (
        lambda file: edit(file, lambda content: content.attrs.create("complete", np.uint8(0))),
        rf"out\.h5 is unfinished.*{AGAIN}",
    ),
    "foreign": (
        lambda file: edit(file, lambda content: content.attrs.modify("format", "other")),
        r"out\.h5 is an HDF5 file, but not one written by depthbal prepare",
    ),
    "without train": (
        lambda file: edit(file, lambda content: content.pop("train")),
        r"out\.h5 has no train split \(packed: test\)",
    ),
    "without names": (
        lambda file: edit(file, lambda content: content["test"].pop("name")),
        rf"out\.h5: .*{AGAIN}",
    ),
    "without pictures": (
        lambda file: edit(file, lambda content: content["test"].pop("image")),
        r"out\.h5: nyu2_test/00000_colors\.png.* cannot be read",
    ),
    "missing": (lambda file: file.unlink(), r"out\.h5 does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_file_is_refused_with_its_reason_and_the_way_out(file, damage):
    change, words = DAMAGES[damage]
    change(file)
    with pytest.raises(DataError, match=words):
        set_up(NYUD2DataModule, file, val_fraction=0.0)


def test_settings_that_contradict_the_file_are_refused(file):
    with pytest.raises(ConfigError, match=r"holds pictures of short side 24, and short_side is 22"):
        set_up(NYUD2DataModule, file, short_side=22)
    with pytest.raises(ConfigError, match=r"packed with train_csv: nyu2_train\.csv, and train_csv"):
        set_up(NYUD2DataModule, file, train_csv="nyu2_train_FDS_subset.csv")
    with pytest.raises(DataError, match=r"was packed from .*src; read it with NYUD2DataModule"):
        set_up(FolderDataModule, file)


def test_a_sample_that_cannot_be_read_is_named(file):
    pairs = PackedPairs(file, "test")
    file.unlink()
    with pytest.raises(DataError, match=rf"{re.escape(pairs.name(1))} cannot be read"):
        pairs.load(1)
