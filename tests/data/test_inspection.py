import os
import shutil

import numpy as np
import pytest

from depthbal.data import FolderDataModule, NYUD2DataModule, inspection
from depthbal.data.pairs import PairSubset
from depthbal.errors import DataError
from tests.data.make_files import SMALL, array_source, noise_image, write_image, write_nyud2

N_TRAIN, N_TEST = 40, 15  # the probes look at 5 of each


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_nyud2(folder, scenes=20, per_scene=2, n_test=N_TEST)
    return folder


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy") / "data"


def set_up(data, **kwargs):
    module = NYUD2DataModule(data, **{**SMALL, "val_fraction": 0.0, **kwargs})
    module.setup("fit")
    return module


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def shrink(path):
    write_image(path, np.full((24, 30), 90, np.uint8))


def empty(path):
    path.write_bytes(b"")


def wrong_unit(path):
    write_image(path, np.full((24, 32), 3, np.uint16))


# files that no probe loads
DAMAGES = [
    ("nyu2_train/scene03_out/2.jpg", truncate, "the file is truncated"),
    ("nyu2_train/scene03_out/2.png", truncate, "the file is truncated"),
    ("nyu2_train/scene03_out/2.png", shrink, "the depth map is 24 x 30 but its image 24 x 32"),
    ("nyu2_train/scene11_out/1.jpg", empty, "the file is empty"),
    ("nyu2_test/00001_colors.png", truncate, "the file is truncated"),
    ("nyu2_test/00005_depth.png", shrink, "the depth map is 24 x 30 but its image 24 x 32"),
    ("nyu2_test/00012_depth.png", wrong_unit, "all 768 valid depths lie outside 0.1 to 100 m"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES)
def test_damage_anywhere_in_a_split_is_found_by_setup(data, name, damage, words):
    damage(data / name)
    with pytest.raises(DataError, match=f"{name}.*{words}") as caught:
        set_up(data)
    assert "more faulty" not in str(caught.value)


def test_damage_in_the_validation_split_is_found_by_setup(data):
    held_out = set_up(data, val_fraction=0.2).val_set.source
    indices = range(len(held_out))
    probed = {round(step * (len(held_out) - 1) / 4) for step in range(5)}
    index = next(index for index in indices if index not in probed)
    for damage, words in ((wrong_unit, "depths lie outside"), (truncate, "is truncated")):
        damage(data / held_out.name(index).split(" with ")[1])
        with pytest.raises(DataError, match=words):
            set_up(data, val_fraction=0.2)


def test_the_error_names_the_first_of_several_and_their_number(data):
    for number in (9, 2, 6):
        truncate(data / f"nyu2_test/{number:05d}_depth.png")
    with pytest.raises(DataError, match=r"00002_depth\.png: .*\(and 2 more faulty\)"):
        set_up(data)


def test_all_chunks_are_checked_and_reported_in_order(data, monkeypatch):
    monkeypatch.setattr(inspection, "_CHUNK", 3)
    for stem in ("scene19_out/2", "scene03_out/1"):
        truncate(data / f"nyu2_train/{stem}.jpg")
    with pytest.raises(DataError, match=r"scene03_out/1\.jpg: .*\(and 1 more faulty"):
        set_up(data)


def test_a_link_to_nothing_is_named(data):
    path = data / "nyu2_train/scene03_out/2.png"
    path.unlink()
    path.symlink_to(data / "gone.png")
    with pytest.raises(DataError, match=r"scene03_out/2\.png: cannot be read"):
        set_up(data)


def test_images_of_a_size_that_no_probe_met_cannot_form_a_batch(data):
    stem = data / "nyu2_train/scene03_out/2"
    write_image(stem.with_suffix(".jpg"), noise_image(24, 40))
    write_image(stem.with_suffix(".png"), np.full((24, 40), 80, np.uint8))
    set_up(data)  # the crop makes them equal
    with pytest.raises(DataError, match=r"training split differ in size .*scene03_out/2.*24 x 40"):
        set_up(data, crop_size=None)


def test_an_image_smaller_than_the_crop_is_found_by_setup(data):
    stem = data / "nyu2_train/scene03_out/2"
    write_image(stem.with_suffix(".jpg"), noise_image(30, 30))
    write_image(stem.with_suffix(".png"), np.full((30, 30), 80, np.uint8))
    with pytest.raises(DataError, match=r"scene03_out/2\.jpg.*: the crop of 20 x 28 is larger"):
        set_up(data)


def test_later_starts_skip_the_check_until_a_file_changes(data, own_cache, monkeypatch):
    calls = []
    check = inspection.check_files
    monkeypatch.setattr(inspection, "check_files", lambda *a: calls.append(a) or check(*a))
    set_up(data)
    assert len(calls) == N_TRAIN + N_TEST
    assert len(list((own_cache.parent / "checked").glob("*.json"))) == 2
    set_up(data, crop_size=(18, 26))
    assert len(calls) == N_TRAIN + N_TEST
    os.utime(data / "nyu2_train/scene03_out/2.png", (1, 1))
    set_up(data)
    assert len(calls) == 2 * N_TRAIN + N_TEST


def test_a_faulty_split_is_checked_again_and_a_damaged_record_too(data, own_cache):
    path = data / "nyu2_test/00005_colors.png"
    content = path.read_bytes()
    truncate(path)
    for _ in range(2):
        with pytest.raises(DataError, match="00005_colors"):
            set_up(data)
    assert not (own_cache.parent / "checked").exists()
    path.write_bytes(content)
    set_up(data)
    (record, _) = sorted((own_cache.parent / "checked").iterdir())
    intact = record.read_text()
    for damage in ("", "[]", '{"sizes": 3}', '{"sizes": [[1]]}'):
        record.write_text(damage)
        set_up(data)
        assert record.read_text() == intact


def test_a_record_that_cannot_be_written_costs_time_only(data, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    set_up(data)


def test_nan_in_any_test_map_of_own_data_is_found_by_setup(tmp_path):
    for split, count in (("train", 3), ("test", 12)):
        for index in range(count):
            write_image(tmp_path / split / "rgb" / f"{index:02d}.png", noise_image(24, 32))
            depth = np.full((24, 32), 2.0, np.float32)
            depth[0, 0] = np.nan if (split, index) == ("test", 4) else 1.0
            (tmp_path / split / "depth").mkdir(exist_ok=True)
            np.save(tmp_path / split / "depth" / f"{index:02d}.npy", depth)
    module = FolderDataModule(tmp_path, **{**SMALL, "val_fraction": 0.0})
    with pytest.raises(DataError, match=r"04\.npy: 1 of 768 depth values are NaN"):
        module.setup("fit")


def test_pairs_in_memory_have_no_files_but_their_values_are_checked():
    source = PairSubset(array_source(9), range(1, 9))
    assert inspection.inspect_split(source, "test", values=False) == {}
    source.source.pairs[4][1][2, 2] = -1.0
    with pytest.raises(DataError, match="array 4: smallest depth is -1 m"):
        inspection.inspect_split(source, "test", values=True)
