import cv2
import numpy as np
import pytest

from depthbal.data import FolderDataModule
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import SMALL, noise_image, ramp_depth, write_image


def write_depth(path, depth, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "npy":
        np.save(path.with_suffix(".npy"), depth)
    elif kind == "uint16":
        assert cv2.imwrite(str(path), np.rint(depth * 1000).astype(np.uint16))
    else:
        assert cv2.imwrite(str(path), np.rint(depth * 20).astype(np.uint8))


def write_set(root, count=20, scenes=1, kind="uint16"):
    for index in range(count):
        stem = f"s{index % scenes}/{index:03d}" if scenes > 1 else f"{index:03d}"
        write_image(root / "rgb" / f"{stem}.jpg", noise_image(24, 32, index))
        write_depth(root / "depth" / f"{stem}.png", ramp_depth(24, 32, index % 5), kind)


def module_of(root, **kwargs):
    module = FolderDataModule(root, **{**SMALL, **kwargs})
    module.setup("fit")
    return module


def names(dataset):
    return {dataset.source.name(i) for i in range(len(dataset))}


@pytest.mark.parametrize(
    ("kind", "scale", "tolerance"),
    [("uint16", None, 5.1e-4), ("npy", None, 0), ("uint8", 0.05, 0.026)],
)
def test_depth_of_every_kind_arrives_in_metres(tmp_path, kind, scale, tolerance):
    write_set(tmp_path, kind=kind)
    module = module_of(tmp_path, scale=scale)
    for dataset in (module.train_set, module.val_set, module.test_set):
        for index in range(len(dataset)):
            number = int(dataset.source.name(index).split("/")[1].split(".")[0])
            depth = dataset.source.load(index)[1]
            np.testing.assert_allclose(depth, ramp_depth(24, 32, number % 5), atol=tolerance)
    assert module.quantum == (0.05 if kind == "uint8" else None)
    assert module.benchmark is None


def test_one_set_is_divided_into_three_without_overlap(tmp_path):
    write_set(tmp_path, count=40)
    module = module_of(tmp_path, val_fraction=0.1, test_fraction=0.2)
    parts = [names(dataset) for dataset in (module.train_set, module.val_set, module.test_set)]
    assert [len(part) for part in parts] == [29, 3, 8]
    assert len(set.union(*parts)) == 40


def test_the_test_split_is_the_same_before_training_and_alone(tmp_path):
    write_set(tmp_path, count=40)
    alone = FolderDataModule(tmp_path, **SMALL)
    alone.setup("test")
    assert names(alone.test_set) == names(module_of(tmp_path).test_set)
    assert alone.train_set is None


def test_subfolders_are_scenes_that_no_split_cuts(tmp_path):
    write_set(tmp_path, count=60, scenes=15)
    module = module_of(tmp_path, val_fraction=0.2, test_fraction=0.2)
    parts = [
        {dataset.source.group(i) for i in range(len(dataset))}
        for dataset in (module.train_set, module.val_set, module.test_set)
    ]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 15


def test_split_folders_are_used_as_they_are(tmp_path):
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        write_set(tmp_path / split, count=count)
    module = module_of(tmp_path)
    assert [len(d) for d in (module.train_set, module.val_set, module.test_set)] == [6, 2, 3]


def test_split_folders_without_validation_hold_some_training_pairs_out(tmp_path):
    for split, count in (("train", 20), ("test", 3)):
        write_set(tmp_path / split, count=count)
    module = module_of(tmp_path, val_fraction=0.1)
    assert [len(d) for d in (module.train_set, module.val_set, module.test_set)] == [18, 2, 3]


def test_a_missing_test_folder_is_named(tmp_path):
    write_set(tmp_path / "train")
    with pytest.raises(DataError, match="test is not a folder"):
        module_of(tmp_path)


def test_what_is_checked_before_a_network_is_built_names_the_wrong_setting(tmp_path):
    write_set(tmp_path)
    FolderDataModule(tmp_path).check_root()
    FolderDataModule(tmp_path, rgb="rgb/*.jpg").check_root()
    with pytest.raises(DataError, match=r"--data\.rgb"):
        FolderDataModule(tmp_path, rgb="images").check_root()
    with pytest.raises(DataError, match=r"--data\.depth"):
        FolderDataModule(tmp_path, depth="depths/*.png").check_root()
    with pytest.raises(DataError, match="nowhere is not a folder"):
        FolderDataModule(tmp_path / "nowhere").check_root()
    (tmp_path / "train").mkdir()  # now the splits are folders
    with pytest.raises(DataError, match=r"train/rgb is not a folder"):
        FolderDataModule(tmp_path).check_root()


def test_patterns_describe_other_layouts(tmp_path):
    for index in range(12):
        write_image(tmp_path / f"room{index}" / "a_colors.png", noise_image(24, 32))
        write_depth(tmp_path / f"room{index}" / "a_depth.png", ramp_depth(24, 32), "uint16")
    module = module_of(tmp_path, rgb="**/*_colors.png", depth="**/*_depth.png")
    assert len(module.train_set) + len(module.val_set) + len(module.test_set) == 12


def test_files_without_a_partner_are_left_out_with_a_warning(tmp_path):
    write_set(tmp_path)
    (tmp_path / "depth" / "007.png").unlink()
    with pytest.warns(
        UserWarning, match=r"1 files have no partner .*rgb/007\.jpg.*19 pairs remain"
    ):
        module_of(tmp_path)


def test_invalid_values_become_no_depth(tmp_path):
    write_set(tmp_path, kind="npy")
    for path in (tmp_path / "depth").iterdir():
        depth = np.load(path)
        depth[:5] = -1
        np.save(path, depth)
    with pytest.raises(DataError, match=r"smallest depth is -1 m.*invalid"):
        module_of(tmp_path)
    module = module_of(tmp_path, invalid=[-1.0])
    assert not module.train_set.source.load(0)[1][:5].any()


def test_nan_depth_is_found_before_training_and_named(tmp_path):
    write_set(tmp_path, kind="npy")
    for path in (tmp_path / "depth").iterdir():
        depth = np.load(path)
        depth[0, 0] = np.nan
        np.save(path, depth)
    with pytest.raises(DataError, match=r"depth/\d+\.npy: 1 of 768 depth values are NaN"):
        module_of(tmp_path)
    module_of(tmp_path, invalid=[float("nan")])


def test_8_bit_depth_without_a_scale_is_refused_before_training(tmp_path):
    write_set(tmp_path, kind="uint8")
    with pytest.raises(DataError, match="set scale to the metres per unit"):
        module_of(tmp_path)


def test_a_wrong_scale_is_named_before_training(tmp_path):
    write_set(tmp_path)
    with pytest.raises(DataError, match=r"unit is wrong; set scale to 0\.001 times"):
        module_of(tmp_path, scale=1.0)


def test_images_of_different_sizes_need_a_crop(tmp_path):
    write_set(tmp_path)
    for path in sorted((tmp_path / "rgb").iterdir())[::2]:
        write_image(path, noise_image(24, 40))
        write_depth(tmp_path / "depth" / f"{path.stem}.png", ramp_depth(24, 40), "uint16")
    with pytest.raises(DataError, match=r"differ in size .*24 x 40.* set short_side and crop_size"):
        module_of(tmp_path, crop_size=None)
    module_of(tmp_path)


def test_settings_outside_their_range_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="scale"):
        FolderDataModule(tmp_path, scale=0.0)
    with pytest.raises(ConfigError, match="test_fraction"):
        FolderDataModule(tmp_path, test_fraction=0.0)
