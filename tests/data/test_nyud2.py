import os
import time

import numpy as np
import pytest

from depthbal.data import NYUD2DataModule
from depthbal.data.pairs import read_list
from depthbal.errors import DataError
from tests.data.make_files import SMALL, grey_image, ramp_depth, set_up, write_file, write_nyud2
from tests.shared import SHARED, needs_shared


@pytest.fixture
def data(tmp_path):
    return write_nyud2(tmp_path)


def test_the_root_may_contain_the_data_folder_or_be_it(data):
    for root in (data, data.parent):
        module = set_up(NYUD2DataModule, root, val_fraction=0.0)
        assert (len(module.train_set), len(module.test_set)) == (24, 3)
        assert module.val_dataloader() == []


def test_what_is_held_out_of_a_shuffled_list_are_blocks_of_neighbours_all_the_same(tmp_path):
    data = write_nyud2(tmp_path, scenes=1, per_scene=40)
    rows, held_out = (data / "nyu2_train.csv").read_text().split(), []
    for order in (range(40), np.random.default_rng(0).permutation(40)):
        (data / "nyu2_train.csv").write_text("\n".join(rows[index] for index in order))
        module = set_up(NYUD2DataModule, tmp_path, val_fraction=0.25)
        held_out.append({module.val_set.source.name(index) for index in range(10)})
        assert len(module.train_set) == 30
    assert held_out[0] == held_out[1]


def test_training_depth_is_8_bit_up_to_10_m_and_test_depth_is_millimetres(data):
    module = set_up(NYUD2DataModule, data, val_fraction=0.0)
    train, test = (part.source.load(0)[1] for part in (module.train_set, module.test_set))
    np.testing.assert_allclose(train, np.rint(ramp_depth(24, 32) * 25.5) / 255 * 10, rtol=1e-6)
    np.testing.assert_allclose(test, ramp_depth(24, 32), atol=5.1e-4)
    assert module.quantum == pytest.approx(10 / 255)
    assert module.benchmark == "nyud2_dir"
    for path in data.glob("nyu2_train/*/*.png"):  # repacked in 16 bit: no coarse levels
        write_file(path, np.full((24, 32), 2500, dtype=np.uint16))
    module = set_up(NYUD2DataModule, data)
    assert module.quantum is None
    assert module.train_set.source.load(0)[1][0, 0] == 2.5


def test_the_test_split_alone_needs_no_training_files(data):
    (data / "nyu2_train.csv").unlink()
    module = NYUD2DataModule(data, **SMALL)
    module.setup("test")
    assert module.describe()["images"] == {"train": None, "val": None, "test": 3}
    with pytest.raises(DataError, match=r"nyu2_train\.csv"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ((3, 20, 28), None),
        ((4, 20, 28), r"expected a mask of 3 test images of 20 x 28 .* \(4, 20, 28\)"),
        (b"PK\x03\x04 of an npz file, cut off", "not a readable .npy file"),
    ],
)
def test_the_official_mask_is_found_where_the_user_has_it_and_must_fit(data, content, words):
    assert set_up(NYUD2DataModule, data).balanced_mask_file is None
    mask = data / "test_balanced_mask.npy"
    if isinstance(content, bytes):
        mask.write_bytes(content)
    else:
        np.save(mask, np.ones(content, bool))
    if words is None:
        assert set_up(NYUD2DataModule, data).balanced_mask_file == mask
    else:
        with pytest.raises(DataError, match=rf"test_balanced_mask\.npy: {words}"):
            set_up(NYUD2DataModule, data)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (".", r"there is no .*data/nyu2_test\.csv; give --data\.root"),
        ("nowhere", r"there is no .*nowhere/data/nyu2_train\.csv"),
        ("cut.h5", r"cut\.h5: no packed file"),
    ],
)
def test_a_missing_root_is_named_before_a_network_is_built(data, monkeypatch, root, words):
    monkeypatch.chdir(data.parent)
    NYUD2DataModule(".").check_root()
    (data / "nyu2_test.csv").unlink()
    (data.parent / "cut.h5").write_bytes(b"")
    with pytest.raises(DataError, match=words):
        NYUD2DataModule(root).check_root()


def constant(value, size=(24, 32), dtype=np.uint8):
    return np.full(size, value, dtype)


@pytest.mark.parametrize(
    ("files", "content", "words"),
    [
        (
            "nyu2_train/scene00_out/1.png",
            constant(1, (32, 24)),
            r"scene00_out/1\.png: the depth map is 32 x 24 of float32 and its image 24 x 32 x 3",
        ),
        (
            "nyu2_test/*_depth.png",
            constant(2, dtype=np.uint16),
            r"100% of the test split's depths lie outside .* but 1 gives 2 to 2 m",
        ),
        ("nyu2_train/scene00_out/1.jpg", b"\xff\xd8\xff", r"_out/1\.jpg: the file is truncated"),
        ("nyu2_test/*_depth.png", constant(0), "test split has no pixel with depth of at least 0."),
        ("nyu2_train/*/*.png", constant(0), "train split has no pixel"),
        (
            "nyu2_train/scene00_out/1.*",
            grey_image(30, 30)[..., 0],
            r"scene00_out/1\.jpg.*: the crop of 20 x 28 is larger .* 24 x 24",
        ),
    ],
)
def test_damage_is_reported_by_setup_with_the_file(data, files, content, words):
    for path in data.glob(files):
        write_file(path, content)
    with pytest.raises(DataError, match=words):
        set_up(NYUD2DataModule, data, val_fraction=0.0)


def test_the_fingerprint_follows_the_files_but_not_the_place(data):
    first = set_up(NYUD2DataModule, data).fingerprint()
    moved = data.rename(data.parent / "moved")
    assert set_up(NYUD2DataModule, moved).fingerprint() == first
    os.utime(moved / "nyu2_train/scene03_out/1.png", (1, 1))
    assert set_up(NYUD2DataModule, moved).fingerprint() != first


@needs_shared
def test_the_real_labelled_set_is_read_as_described(caplog):
    with caplog.at_level("INFO"):
        module = NYUD2DataModule(SHARED / "nyuv2", num_workers=0)
        module.setup("fit")
    assert [len(part) for part in (module.train_set, module.val_set)] == [755, 40]
    assert "1 folder(s) are fewer than 10" in caplog.text
    module = NYUD2DataModule(SHARED / "nyuv2", num_workers=0, val_fraction=0.0)
    module.setup("fit")
    assert (len(module.train_set), len(module.test_set)) == (795, 654)
    sample = module.train_set[0, 0]
    assert sample["image"].shape == (3, 228, 304)
    assert sample["depth"].shape == (1, 114, 152)
    assert module.test_set[0]["depth"].shape == (1, 228, 304)
    counts = module.train_histogram().counts
    assert counts.max() / counts.min() > 200  # described: 360:1, unspread
    per_metre = np.add.reduceat(counts, [3, 13, 23, 33, 43, 53, 63, 73, 83])
    described = np.array([27.6, 32.9, 19.2, 9.6, 4.1, 2.0, 0.9, 0.4, 0.3])
    np.testing.assert_allclose(per_metre / counts.sum() * 100, described, atol=1.5)


# ---- the lists ----


def read(root, text):
    for name in ("s1/1.jpg", "s1/1.png", "s2/1.jpg", "s2/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_list(root / "list.csv", root, "data/")


@pytest.mark.parametrize("prefix", ["data/", "", "./data/"])
def test_rows_are_read_relative_to_the_data_folder(tmp_path, prefix):
    rows = [f"{prefix}s{i}/1.jpg,{prefix}s{i}/1.png" for i in (2, 1)]
    expected = [(f"s{i}/1.jpg", f"s{i}/1.png") for i in (2, 1)]
    assert read(tmp_path, "\r\n".join([*rows, "", ""])) == expected
    assert read(tmp_path, "\n".join(rows).encode("utf-8-sig")) == expected
    start = time.perf_counter()
    assert read(tmp_path, "\n".join(rows * 25_000)) == expected * 25_000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("s1/1.jpg", "row 1: expected 2 columns"),
        ("s1/1.jpg,s1/1.png\ns1/1.jpg,", "row 2: expected 2 columns"),
        (
            "data/s1/1.jpg,data/s1/1.png\n\ns2/1.jpg,s2/7.png",
            r"1 of 4 files do not exist in .* \(row 3: s2/7\.png\); complete the download",
        ),
        (
            "\n".join(f"no/{n}.jpg,s1/1.png" for n in range(5)),
            r"5 of 10 files .*\(row 1: no/0\.jpg, .*row 3: no/2\.jpg, \.\.\.\)",
        ),
        ("\n,\n", "empty"),
        (b"\xff\xfe\x00,\x80", "not a readable list"),
    ],
)
def test_a_bad_row_is_named_as_an_editor_counts_it(tmp_path, rows, words):
    with pytest.raises(DataError, match=rf"list\.csv.*{words}"):
        read(tmp_path, rows)
