import os

import numpy as np
import pytest
import torch

from depthbal.data import NYUD2DataModule
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import SMALL, grey_image, ramp_depth, write_image, write_nyud2
from tests.shared import SHARED, needs_shared


def module_of(root, **kwargs):
    module = NYUD2DataModule(root, **{**SMALL, **kwargs})
    module.setup("fit")
    return module


@pytest.mark.parametrize("inside", [False, True])
def test_the_root_may_contain_the_data_folder_or_be_it(tmp_path, inside):
    data = write_nyud2(tmp_path)
    module = module_of(data if inside else tmp_path)
    assert len(module.test_set) == 3
    assert len(module.train_set) + len(module.val_set) == 24


def test_training_depth_is_8_bit_up_to_10_m_and_test_depth_is_millimetres(tmp_path):
    write_nyud2(tmp_path, size=(24, 32))
    module = module_of(tmp_path, val_fraction=0.0)
    train = module.train_set.source.load(0)[1]
    levels = np.rint(ramp_depth(24, 32) * 25.5)
    np.testing.assert_allclose(train, levels / 255 * 10, rtol=1e-6)
    test = module.test_set.source.load(0)[1]
    np.testing.assert_allclose(test, ramp_depth(24, 32), atol=5.1e-4)
    assert module.quantum == pytest.approx(10 / 255)
    assert module.benchmark == "nyud2_dir"


def test_training_depth_repacked_in_16_bit_has_no_coarse_levels(tmp_path):
    data = write_nyud2(tmp_path, scenes=10, per_scene=1)
    for path in data.glob("nyu2_train/*/*.png"):
        write_image(path, np.full((24, 32), 2500, dtype=np.uint16))
    module = module_of(tmp_path)
    assert module.quantum is None
    assert module.train_set.source.load(0)[1][0, 0] == 2.5


def test_validation_takes_whole_scene_folders(tmp_path):
    write_nyud2(tmp_path, scenes=12, per_scene=2)
    module = module_of(tmp_path, val_fraction=0.2)
    scenes = [
        {dataset.source.group(i) for i in range(len(dataset))}
        for dataset in (module.train_set, module.val_set)
    ]
    assert not scenes[0] & scenes[1]
    assert len(scenes[1]) == 2
    assert all(scene.startswith("nyu2_train/scene") for scene in scenes[0])


def test_no_validation_leaves_all_training_rows(tmp_path):
    write_nyud2(tmp_path)
    module = module_of(tmp_path, val_fraction=0.0)
    assert module.val_set is None
    assert module.val_dataloader() == []
    assert len(module.train_set) == 24


def test_the_test_split_alone_needs_no_training_files(tmp_path):
    data = write_nyud2(tmp_path)
    (data / "nyu2_train.csv").unlink()
    module = NYUD2DataModule(tmp_path, **SMALL)
    module.setup("test")
    assert module.describe()["images"] == {"train": None, "val": None, "test": 3}
    with pytest.raises(DataError, match=r"nyu2_train\.csv"):
        module.setup("fit")


def test_the_official_mask_is_found_where_the_user_has_it(tmp_path):
    data = write_nyud2(tmp_path)
    assert module_of(tmp_path).balanced_mask_file is None
    np.save(data / "test_balanced_mask.npy", np.ones((3, 20, 28), bool))
    assert module_of(tmp_path).balanced_mask_file == data / "test_balanced_mask.npy"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ((4, 20, 28), r"expected a mask of 3 test images of 20 x 28 .* \(4, 20, 28\)"),
        ((3, 24, 32), r"expected a mask of 3 test images of 20 x 28 .* \(3, 24, 32\)"),
        (b"", "not a readable npy file"),
        (b"PK\x03\x04 of an npz file, cut off", "not a readable npy file"),
    ],
)
def test_an_official_mask_of_another_test_set_or_crop_is_found_by_setup(tmp_path, content, words):
    mask = write_nyud2(tmp_path) / "test_balanced_mask.npy"
    if isinstance(content, bytes):
        mask.write_bytes(content)
    else:
        np.save(mask, np.ones(content, bool))
    with pytest.raises(DataError, match=rf"test_balanced_mask\.npy: {words}"):
        module_of(tmp_path)


def test_a_root_without_the_lists_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; expected the folder"):
        module_of(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds neither data/nyu2_test\.csv nor"):
        module_of(tmp_path)


def test_what_is_checked_before_a_network_is_built_needs_both_lists(tmp_path):
    data = write_nyud2(tmp_path)
    (data / "nyu2_train" / "scene00_out" / "1.jpg").unlink()  # the pictures come later
    NYUD2DataModule(tmp_path).check_root()
    (data / "nyu2_test.csv").unlink()
    with pytest.raises(DataError, match=r"--data\.root .* holds neither data/nyu2_test\.csv nor"):
        NYUD2DataModule(tmp_path).check_root()
    (tmp_path / "cut.h5").write_bytes(b"")
    with pytest.raises(DataError, match=r"cut\.h5: no packed file"):
        NYUD2DataModule(tmp_path / "cut.h5").check_root()


def break_depth_size(data):
    write_image(data / "nyu2_train/scene00_out/1.png", np.ones((32, 24), np.uint8))


def break_unit(data):
    write_image(data / "nyu2_test/00000_depth.png", np.full((24, 32), 2, np.uint16))


def break_by_truncation(data):
    path = data / "nyu2_train/scene00_out/1.jpg"
    path.write_bytes(path.read_bytes()[:-40])


def break_by_absence(data):
    (data / "nyu2_train/scene05_out/2.png").unlink()


def break_test_validity(data):
    for path in data.glob("nyu2_test/*_depth.png"):
        write_image(path, np.zeros((24, 32), np.uint16))


def break_train_validity(data):
    for path in data.glob("nyu2_train/*/*.png"):
        write_image(path, np.zeros((24, 32), np.uint8))


def break_size(data):
    write_image(data / "nyu2_train/scene00_out/1.jpg", grey_image(30, 30))
    write_image(data / "nyu2_train/scene00_out/1.png", np.full((30, 30), 80, np.uint8))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_depth_size, r"scene00_out/1\.png: the depth map is 32 x 24 but its image 24 x 32"),
        (break_unit, r"00000_depth\.png: all 768 valid depths lie outside .*set scale to 1000"),
        (break_by_truncation, r"scene00_out/1\.jpg: the file is truncated"),
        (break_by_absence, r"nyu2_train\.csv: 1 of 48 files do not .*row 12: .*scene05_out/2\.png"),
        (break_test_validity, "test split has no pixel with depth of at least 0.7 m"),
        (break_train_validity, "training split has no pixel"),
        (break_size, r"scene00_out/1\.jpg.*: the crop of 20 x 28 is larger .* 24 x 24"),
    ],
)
def test_damage_is_reported_by_setup_with_the_file(tmp_path, damage, words):
    damage(write_nyud2(tmp_path))
    with pytest.raises(DataError, match=words):
        module_of(tmp_path, val_fraction=0.0)


def test_the_fingerprint_follows_the_files_but_not_the_place(tmp_path):
    data = write_nyud2(tmp_path / "a")
    first = module_of(tmp_path / "a").fingerprint()
    (tmp_path / "a").rename(tmp_path / "b")
    assert module_of(tmp_path / "b").fingerprint() == first
    os.utime(tmp_path / "b" / data.name / "nyu2_train/scene03_out/1.png", (1, 1))
    assert module_of(tmp_path / "b").fingerprint() != first


def test_a_value_outside_its_range_is_refused_at_once(tmp_path):
    for setting, value in (
        ("batch_size", 0),
        ("val_fraction", 1.0),
        ("bin_width", 0.35),
        ("max_depth", 0.5),
    ):
        with pytest.raises(ConfigError, match=setting):
            NYUD2DataModule(tmp_path, **{setting: value})


@needs_shared
def test_the_real_labelled_set_is_read_as_described():
    module = NYUD2DataModule(SHARED / "nyuv2", num_workers=0, val_fraction=0.0)
    module.setup("fit")
    assert len(module.train_set) == 795
    assert len(module.test_set) == 654
    sample, tested = module.train_set[0, 0], module.test_set[0]
    assert sample["image"].shape == (3, 228, 304)
    assert sample["depth"].shape == (1, 114, 152)
    assert tested["depth"].shape == (1, 228, 304)
    counts = module.train_histogram(progress=False).counts
    assert counts.max() / counts.min() > 200  # described: 360:1, unspread
    per_metre = np.add.reduceat(counts, [3, 13, 23, 33, 43, 53, 63, 73, 83])
    described = np.array([27.6, 32.9, 19.2, 9.6, 4.1, 2.0, 0.9, 0.4, 0.3])
    np.testing.assert_allclose(per_metre / counts.sum() * 100, described, atol=1.5)


@needs_shared
def test_few_folders_are_said_and_split_by_blocks(caplog):
    with caplog.at_level("INFO"):
        module = NYUD2DataModule(SHARED / "nyuv2", num_workers=0)
        module.setup("fit")
    assert len(module.val_set) == 40
    assert "1 folder(s) are fewer than 10" in caplog.text
    rows = torch.tensor(module.val_set.source.indices)
    assert int((rows.diff() > 1).sum()) == 4
