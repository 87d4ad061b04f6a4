import h5py
import numpy as np
import pytest
from scipy.io import savemat

from depthbal.data import NYUD2DataModule
from depthbal.data.packed import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import DataError
from tests.data.make_files import SMALL, noise_image, ramp_depth, write_labelled_mat

COUNT = 24
IMAGES = np.stack([noise_image(24, 32, seed) for seed in range(COUNT)])
DEPTHS = np.stack(
    [ramp_depth(24, 32) + np.random.default_rng(i).random((24, 32)) for i in range(COUNT)]
).astype(np.float32)
SCENES = [f"kitchen_{index // 2:04d}" for index in range(COUNT)]
TRAIN, TEST = np.arange(3, 20), np.array([1, 2, 20, 21])  # counted from 1; three in neither


@pytest.fixture
def mat(tmp_path):
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    write_labelled_mat(path, IMAGES, DEPTHS, SCENES)
    return path


@pytest.fixture
def splits(tmp_path):
    path = tmp_path / "splits.mat"
    savemat(path, {"trainNdxs": TRAIN[:, None], "testNdxs": TEST[:, None].astype(np.uint16)})
    return path


def packed(mat, **settings):
    out = mat.with_name("out.h5")
    pack(mat, out, 24, progress=False, **settings)
    return {split: PackedPairs(out, split) for split in ("train", "test")}


def rows(pairs):
    return [int(pairs.name(index).rpartition(" ")[2]) - 1 for index in range(len(pairs))]


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_the_official_split_is_followed_and_pictures_are_turned_upright(mat, splits, version):
    if version == "7.3":
        splits.unlink()
        with h5py.File(splits, "w") as file:
            file["trainNdxs"], file["testNdxs"] = TRAIN[None].astype(float), TEST[None]
    pairs = packed(mat, splits=str(splits))
    for split, expected in (("train", TRAIN - 1), ("test", TEST - 1)):
        assert rows(pairs[split]) == expected.tolist()
        for index, row in enumerate(expected):
            image, depth = pairs[split].load(index)
            np.testing.assert_array_equal(image, IMAGES[row])
            assert np.abs(depth - DEPTHS[row]).max() <= 0.0005 + 1e-6
            assert pairs[split].group(index) == SCENES[row]
    assert pairs["train"].stored_dtype() == np.uint16
    assert pairs["train"].name(0) == "nyu_depth_v2_labeled.mat picture 3"


def test_without_the_official_split_whole_scenes_are_held_out(mat):
    pairs = packed(mat)
    scenes = [
        {part.group(index) for index in range(len(part))}
        for part in (pairs["train"], pairs["test"])
    ]
    assert not scenes[0] & scenes[1]
    assert sorted(rows(pairs["train"]) + rows(pairs["test"])) == list(range(COUNT))
    assert 8 <= len(pairs["test"]) <= 11  # 654 of 1449, of 24


def test_without_scenes_contiguous_blocks_are_held_out(tmp_path):
    mat = tmp_path / "nyu_depth_v2_labeled.mat"
    write_labelled_mat(mat, IMAGES, DEPTHS)
    held_out = np.array(rows(packed(mat)["test"]))
    assert len(held_out) == 11
    assert np.count_nonzero(np.diff(held_out) > 1) <= 1


def test_the_data_module_of_the_benchmark_reads_it(mat, splits):
    packed(mat, splits=str(splits))
    module = NYUD2DataModule(mat.with_name("out.h5"), **SMALL, val_fraction=0.0)
    module.setup("fit")
    assert (len(module.train_set), len(module.test_set)) == (17, 4)
    assert module.quantum is None


def pictures(images=(2, 3, 8, 6), depths=(2, 8, 6), dtype=np.uint8):
    return {"images": np.zeros(images, dtype), "depths": np.zeros(depths)}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "got None and None"),
        (pictures(images=(2, 8, 6, 3)), "expected images"),
        (pictures(depths=(3, 8, 6)), "expected images"),
        (pictures(dtype=float), "expected images uint8"),
        (pictures() | {"scenes": np.zeros((1, 2))}, "scenes are not references to strings"),
        (None, r"not a readable MATLAB 7\.3 file"),
    ],
)
def test_another_file_is_refused(tmp_path, arrays, words):
    path = tmp_path / "other.mat"
    if arrays is None:
        savemat(path, {"images": np.zeros(3)})
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    with pytest.raises(DataError, match=rf"other\.mat: .*{words}"):
        packed(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"trainNdxs": TRAIN}, r"not the official splits\.mat .*testNdxs.*no --splits"),
        ({"trainNdxs": TRAIN, "testNdxs": [25]}, "indices from 1 to 24"),
        ({"trainNdxs": TRAIN, "testNdxs": [0]}, "indices from 1 to 24"),
        ({"trainNdxs": TRAIN, "testNdxs": [3]}, "twice or in both"),
        ("x" * 200, r"not the official splits\.mat"),
        (None, r"not the official splits\.mat .*No such file"),
    ],
)
def test_another_split_is_refused(mat, splits, content, words):
    splits.unlink()
    if isinstance(content, str):
        splits.write_text(content)
    elif content is not None:
        savemat(splits, content)
    with pytest.raises(DataError, match=rf"splits\.mat: .*{words}"):
        packed(mat, splits=str(splits))
