"""The embedded rooms as data: seeds, splits, cache, and how their depth is distributed."""

import numpy as np
import pytest

from depthbal.data import RoomsDataModule
from depthbal.data.label_data import SPLITS
from depthbal.data.rooms import datamodule as rooms_datamodule
from depthbal.data.rooms import room
from depthbal.data.rooms.datamodule import RenderedSource
from depthbal.data.rooms.generate import Stage

NYU_PER_METRE = [3.0, 27.6, 32.9, 19.2, 9.6, 4.1, 2.0, 0.9, 0.4, 0.3]  # %, NYUD2-DIR training


def source_of(split, count, size=(24, 32), seed=0, cache=False):
    return RenderedSource(Stage, split, count, size, seed, cache)


def bytes_of(source):
    return [source.pairs[part].tobytes() for part in ("image", "depth")]


@pytest.fixture(scope="module")
def train():
    """The first 480 training pictures at half the resolution: the same scenes, rendered faster."""
    return source_of("train", 480, (60, 80))


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "depthbal" / "rooms"


def test_other_processes_render_the_same_bytes(monkeypatch):
    found = []
    for workers in (0, 2):
        monkeypatch.setattr(rooms_datamodule, "automatic_workers", lambda count=workers: count)
        found.append(bytes_of(source_of("val", 66)))
    assert found[0] == found[1]


def test_every_seed_split_and_number_is_another_scene_at_any_count_and_resolution():
    keys = [(s, split, i) for s in (0, 1, 2**33) for split in SPLITS for i in range(6)]
    depths = {room(seed, split, i, (24, 32))[1].tobytes() for seed, split, i in keys}
    assert len(depths) == len(keys)
    short, long = source_of("test", 3), source_of("test", 5)
    np.testing.assert_array_equal(short.pairs["image"], long.pairs["image"][:3])
    small, large = (room(0, "train", 3, size)[1] for size in ((30, 40), (90, 120)))
    centre = large[1::3, 1::3]  # of 3 x 3 pixels the middle one looks along the coarse pixel's ray
    assert np.isclose(small, centre, rtol=1e-3).mean() > 0.99


def test_depth_has_a_long_tail_like_nyus_and_is_hardly_ever_missing(train):
    depth = train.pairs["depth"]
    missing = depth == 0
    assert missing.mean() < 0.002
    assert missing.mean(axis=(1, 2)).max() < 0.15
    share = 100 * np.histogram(depth[~missing], np.arange(11))[0] / depth.size
    # a random 480 scenes scatter; a factor of 1.5 (0.5 points in the far tail) is "like NYU's"
    np.testing.assert_allclose(share, NYU_PER_METRE, rtol=0.5, atol=0.5)
    depth = depth[~missing]
    assert depth.min() >= 0.7
    assert depth.max() <= 10.0
    counts = np.histogram(depth, np.linspace(0.7, 10.0, 94))[0]
    assert counts.max() / counts.min() >= 50
    few = counts / counts.sum() < 0.00285
    assert 0.02 < counts[few].sum() / counts.sum() < 0.08


def test_depth_is_in_the_picture_not_in_a_pixels_position(train):
    test = source_of("test", 160, (60, 80)).pairs["depth"]
    error = np.mean((test - train.pairs["depth"].mean(axis=0)) ** 2)
    assert 1 - error / test.var() < 0.35
    assert error**0.5 > 1.0
    images = train.pairs["image"].reshape(480, -1)  # neither black nor burnt out nor empty
    assert images.mean(axis=1).min() > 50
    assert images.mean(axis=1).max() < 200
    assert np.mean(images.std(axis=1) > 10) > 0.97


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "foreign"])
def test_a_damaged_cache_file_is_rendered_again(cache_folder, damage):
    first = source_of("test", 2, cache=True)
    (file,) = cache_folder.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged = {"empty": b"", "truncated": content[:900], "flipped": content, "foreign": b"hello"}
    file.write_bytes(damaged[damage])
    assert bytes_of(source_of("test", 2, cache=True)) == bytes_of(first)


def small(**arguments):
    counts = {"n_train": 12, "n_val": 4, "n_test": 6, "size": (48, 64), "cache": False}
    return RoomsDataModule(**(counts | {"batch_size": 4} | arguments))


def pictures(data):
    sets = (data.train_set, data.val_set, data.test_set)
    return [[part.source.load(i)[1].tobytes() for i in range(len(part))] for part in sets]


def test_preparing_fills_the_cache_that_setup_reads(cache_folder, monkeypatch):
    data, fresh = small(cache=True), small()
    fresh.setup()
    data.prepare_data()
    assert [file.suffix for file in cache_folder.iterdir()] == [".npz"] * 3  # no drafts left
    monkeypatch.setattr(rooms_datamodule, "_draw", pytest.fail)  # rendering again would fail
    data.setup()
    assert pictures(data) == pictures(fresh)


def test_splits_and_batches_are_as_asked_and_another_seed_is_another_order_of_the_same():
    one, other, new = small(seed=1), small(seed=2), small(picture_seed=6)
    for data in (one, other, new):
        data.setup()
    assert [len(part) for part in pictures(one)] == [12, 4, 6]
    assert len({picture for part in pictures(one) for picture in part}) == 22
    batch = next(iter(one.train_dataloader()))
    assert batch["image"].shape == (4, 3, 48, 64)
    assert batch["depth"].shape == (4, 1, 24, 32)
    assert next(iter(one.test_dataloader()))["depth"].shape == (4, 1, 48, 64)
    expected = {"size": [48, 64], "seed": 0, "picture_seed": 6, "renderer": Stage.version}
    assert new.describe().items() >= expected.items()
    assert one.fingerprint() == other.fingerprint() != new.fingerprint()
    assert pictures(one) == pictures(other)
    orders = [[index for _, index in data.train_dataloader().sampler] for data in (one, other)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
