"""A packed file that cannot be trusted is refused with a reason, and left as it is."""

import re

import h5py
import numpy as np
import pytest

from depthbal.data import FolderDataModule, NYUD2DataModule
from depthbal.data.packed.origin import find_origin
from depthbal.data.packed.pairs import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import SMALL, write_nyud2


@pytest.fixture
def file(tmp_path):
    source = tmp_path / "src"
    write_nyud2(source, scenes=5, per_scene=2, n_test=2)
    out = tmp_path / "out.h5"
    pack(find_origin(source, {}), out, 24, progress=False)
    return out


def set_up(root, kind=NYUD2DataModule, **kwargs):
    module = kind(root, **{**SMALL, "val_fraction": 0.0, **kwargs})
    module.setup("fit")
    return module


def edit(file, change):
    with h5py.File(file, "r+") as content:
        change(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1000])


def cut_to_nothing(file):
    file.write_bytes(b"")


def not_hdf5(file):
    file.write_text("kitchen,depth\n")


def other_version(file):
    edit(file, lambda content: content.attrs.modify("version", 7))


def foreign(file):
    edit(file, lambda content: content.attrs.modify("format", "somebody else's"))


def unfinished(file):
    edit(file, lambda content: content.attrs.modify("complete", np.uint8(0)))


def without_train(file):
    edit(file, lambda content: content.pop("train"))


def without_names(file):
    edit(file, lambda content: content["test"].pop("name"))


def compressed(file):
    def change(content):
        images = content["test/image"][()]
        del content["test/image"]
        content["test"].create_dataset("image", data=images, compression="gzip")

    edit(file, change)


def overwrite_text(file):
    content = file.read_bytes()
    assert b"scene00_out" in content
    file.write_bytes(content.replace(b"scene00_out", b"\xfe" * 11))


def overwrite_origin(file):
    edit(file, lambda content: content.attrs.modify("origin", "{"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, r"out\.h5: truncated or damaged \(.*truncated file"),
        (cut_to_nothing, r"out\.h5: not an HDF5 file"),
        (not_hdf5, r"out\.h5: not an HDF5 file .*expected a file written by tools/prepare_nyud2"),
        (other_version, r"out\.h5 has version 7 .*reads version 1; pack it again"),
        (foreign, r"out\.h5 is an HDF5 file, but not one written by"),
        (unfinished, r"out\.h5 is unfinished; run tools/prepare_nyud2\.py again"),
        (without_train, r"out\.h5 has no train split \(packed: test\)"),
        (overwrite_text, r"out\.h5 is damaged \(.*utf-8.*pack it again \(--overwrite\)"),
        (overwrite_origin, r"out\.h5 is damaged \(.*pack it again \(--overwrite\)"),
        (without_names, r"out\.h5 is damaged .*pack it again"),
        (compressed, r"test/image was compressed or stored anew by another program"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason_and_left_alone(file, damage, words):
    damage(file)
    before = file.read_bytes()
    with pytest.raises(DataError, match=words):
        set_up(file)
    assert file.read_bytes() == before


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.h5 does not exist"):
        set_up(tmp_path / "nowhere.h5")


def test_a_changed_source_is_refused_and_a_missing_one_is_not(file, caplog):
    data = file.parent / "src" / "data"
    set_up(file)
    picture = data / "nyu2_train" / "scene00_out" / "1.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content[:50] + b"!" + content[51:])
    with pytest.raises(DataError, match=r"the train split of its source .*src changed since"):
        set_up(file)
    picture.unlink()
    with caplog.at_level("INFO", logger="depthbal"):
        assert len(set_up(file).train_set) == 10
    assert "not compared with its incomplete source" in caplog.text
    data.parent.rename(file.parent / "away")
    caplog.clear()
    with caplog.at_level("INFO", logger="depthbal"):
        assert len(set_up(file).train_set) == 10
    assert "incomplete" not in caplog.text


def test_another_test_mask_beside_the_source_is_a_change_of_it(file):
    np.save(file.parent / "src" / "data" / "test_balanced_mask.npy", np.ones((2, 20, 28), bool))
    with pytest.raises(DataError, match=r"the test split of its source .* changed since"):
        set_up(file)


def test_settings_that_contradict_the_file_are_refused(file):
    with pytest.raises(ConfigError, match=r"holds pictures of short side 24, and short_side is 22"):
        set_up(file, short_side=22)
    with pytest.raises(ConfigError, match=r"packed with train_csv: nyu2_train\.csv, and train_csv"):
        set_up(file, train_csv="nyu2_train_FDS_subset.csv")
    with pytest.raises(DataError, match=r"was packed from .*src; read it with NYUD2DataModule"):
        set_up(file, FolderDataModule)


def test_a_file_replaced_during_use_is_an_error(file):
    module = set_up(file)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"out\.h5 was replaced while it was in use"):
        module.train_set[0, 0]
    file.unlink()
    with pytest.raises(DataError, match=r"scene00_out/1\.jpg.* cannot be read"):
        module.train_set[0, 0]


def test_pictures_of_sizes_that_cannot_form_a_batch_are_found_by_setup(tmp_path):
    from tests.data.test_packed_equality import millimetres, packed, write_folder

    reading = {"invalid": [0.0, 65535.0]}
    source = write_folder(tmp_path / "own", millimetres, count=24)
    file = packed(source, tmp_path / "own.h5", **reading)
    with pytest.raises(DataError, match=r"differ in size .*set short_side and crop_size"):
        set_up(file, FolderDataModule, crop_size=None, depth_size=None)


@pytest.mark.parametrize("part", ["image", "depth"])
def test_a_changed_byte_of_a_sample_is_noticed_when_it_is_read(file, part):
    with h5py.File(file) as content:
        position = content["test"][part].id.get_chunk_info(1).byte_offset
    written = bytearray(file.read_bytes())
    written[position + 5] ^= 1
    file.write_bytes(written)
    pairs = PackedPairs(file, "test")
    pairs.load(0)
    name = re.escape(pairs.name(1))
    with pytest.raises(DataError, match=rf"{name} \(test split\) is not what was packed"):
        pairs.load(1)
