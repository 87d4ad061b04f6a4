"""A packed file gives the samples of its source, bit by bit."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from depthbal.data import FolderDataModule, NYUD2DataModule
from depthbal.data.packed.origin import find_origin
from depthbal.data.packing import pack
from tests.data.make_files import SMALL, noise_image, ramp_depth, write_image, write_nyud2
from tests.shared import SHARED, needs_shared


def packed(source: Path, out: Path, short_side: int | None = 24, **settings) -> Path:
    assert pack(find_origin(source, settings), out, short_side, progress=False)
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
    data = write_nyud2(folder, scenes=11, per_scene=2, n_test=4, size=(50, 66))
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


# A spawned process imports everything anew, which takes seconds: one is enough.
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_worker_processes_read_what_one_process_reads(nyud2, context, workers):
    module = set_up(NYUD2DataModule, nyud2[1], val_fraction=0.0)
    module.train_set[0, 0]  # the file has been in use before the processes start
    loader = DataLoader(
        module.train_set, batch_size=4, num_workers=workers, multiprocessing_context=context
    )
    seen = torch.cat([batch["image"] for batch in loader])
    alone = torch.stack([module.train_set[index]["image"] for index in range(22)])
    assert torch.equal(seen, alone)


def test_the_histogram_is_that_of_the_source_and_lies_in_the_file(nyud2, own_cache, monkeypatch):
    source = set_up(NYUD2DataModule, nyud2[0], val_fraction=0.0)
    counted = source.train_histogram(progress=False)
    file = set_up(NYUD2DataModule, nyud2[1], val_fraction=0.0)
    assert file.quantum == source.quantum == pytest.approx(10 / 255)
    np.testing.assert_array_equal(file.train_histogram(progress=False).counts, counted.counts)

    # the settings that most runs use, at the sizes of the benchmark: nothing is left to count
    folder = nyud2[0] / "large"
    write_nyud2(folder, scenes=10, per_scene=1, n_test=1, size=(240, 320))
    large = packed(folder, folder / "packed.h5", 240)
    for entry in own_cache.iterdir():
        entry.unlink()
    monkeypatch.setattr("depthbal.data.datamodule.count_depth", None)
    for val_fraction in (0.0, 0.05):
        module = NYUD2DataModule(large, num_workers=0, val_fraction=val_fraction)
        module.setup("fit")
        histogram = module.train_histogram(progress=False)
        assert histogram.total == (10 if val_fraction == 0 else 9) * 114 * 152
        assert histogram.quantum == pytest.approx(10 / 255)


def test_the_description_is_that_of_the_source_but_for_its_place(nyud2):
    source, file = (set_up(NYUD2DataModule, root).describe() for root in nyud2)
    for described, root in ((source, nyud2[0]), (file, nyud2[1])):
        assert described.pop("source") == str(root)
        described.pop("fingerprint")
    assert json.loads(json.dumps(file)) == source


def test_a_moved_file_keeps_its_fingerprint_and_other_content_has_another(nyud2, tmp_path):
    first = set_up(NYUD2DataModule, nyud2[1]).fingerprint()
    copy = tmp_path / "elsewhere.h5"
    copy.write_bytes(nyud2[1].read_bytes())
    assert set_up(NYUD2DataModule, copy).fingerprint() == first
    other = tmp_path / "other"
    write_nyud2(other, scenes=11, per_scene=2, n_test=4, size=(50, 66))
    file = packed(other, tmp_path / "other.h5")
    assert set_up(NYUD2DataModule, file).fingerprint() != first


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


PORTRAIT = {"crop_size": (20, 20), "depth_size": (10, 10)}


@pytest.mark.parametrize(
    ("depth", "settings"),
    [(millimetres, {"invalid": [0.0, 65535.0]}), (levels, {"scale": 0.05})],
)
def test_own_pictures_of_several_sizes_are_equal_and_split_alike(tmp_path, depth, settings):
    source = write_folder(tmp_path / "own", depth)
    file = packed(source, tmp_path / "own.h5", **settings)
    for seed in (0, 1):
        given = {**PORTRAIT, "seed": seed, "test_fraction": 0.25}
        one = set_up(FolderDataModule, source, **settings, **given)
        # the settings of reading are in the file, and may be repeated
        for other in (given, {**settings, **given}):
            module = set_up(FolderDataModule, file, **other)
            assert_equal_samples(one, module, epochs=(1,))
            assert module.quantum == one.quantum


def test_split_folders_stay_splits(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        write_folder(tmp_path / "own" / split, millimetres, count=3 + number)
    reading = {"invalid": [0.0, 65535.0]}
    file = packed(tmp_path / "own", tmp_path / "own.h5", **reading)
    one = set_up(FolderDataModule, tmp_path / "own", **reading, **PORTRAIT)
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


def test_sizes_kept_as_they_are_leave_the_resizing_to_training(tmp_path):
    source = write_folder(tmp_path / "own", millimetres)
    reading = {"invalid": [0.0, 65535.0]}
    file = packed(source, tmp_path / "own.h5", None, **reading)
    for short_side in (24, 30):
        given = {**PORTRAIT, "short_side": short_side}
        one = set_up(FolderDataModule, source, **reading, **given)
        assert_equal_samples(one, set_up(FolderDataModule, file, **given), epochs=(0,))


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
