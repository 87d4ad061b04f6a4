"""Pixels that are only known to lie beyond the range, from a source's inf to a batch's map."""

import numpy as np
import pytest
import torch

from depthbal.data import DepthDataset, EvalTransform, TrainTransform
from depthbal.data import packing as packing_room
from depthbal.data.packed import PackedPairs
from tests.data.make_files import (
    ArraySource,
    SkyDataModule,
    SkySource,
    sky_pair,
)

SIZES = (24, (20, 28), (10, 14))


def set_up_sky(**settings):
    data = SkyDataModule(**settings)
    data.setup()
    return data


def test_a_batch_has_the_map_and_no_depth_in_it():
    data = set_up_sky()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch["beyond"].dtype == torch.bool
        assert batch["beyond"].shape == batch["depth"].shape
        assert 0.1 < batch["beyond"].float().mean() < 0.6
        assert not batch["depth"][batch["beyond"]].any()
        assert batch["depth"].isfinite().all()
    assert batch["depth"].max() <= 40  # beyond which depth was measured, but is unknown
    for whole, index in zip(data.whole_images(), range(100, 104), strict=True):
        assert np.array_equal(whole["beyond"][0, 0].numpy(), np.isinf(sky_pair(index)[1]))


def test_a_source_that_knows_none_gives_no_map_and_inf_is_no_depth():
    image, depth = sky_pair(0)
    sample = DepthDataset(ArraySource([(image, depth)]), EvalTransform(None, None), limit=40.0)[0]
    assert "beyond" not in sample
    assert not sample["depth"][0][np.isinf(depth)].any()


def test_depth_measured_beyond_the_range_is_known_to_be_there_where_that_is_said():
    depth = np.linspace(0, 60, 24 * 32, dtype=np.float32).reshape(24, 32)
    source = ArraySource([(np.zeros((24, 32, 3), np.uint8), depth)])
    sample = DepthDataset(source, EvalTransform(None, None), limit=40.0, measured_beyond=True)[0]
    assert np.array_equal(sample["beyond"][0].numpy(), depth > 40)
    assert np.array_equal(sample["depth"][0].numpy(), np.where(depth <= 40, depth, 0))


@pytest.mark.parametrize("seed", range(4))
def test_augmentation_moves_the_sky_with_its_picture(seed):
    """The sky of the picture is blue; whatever is turned into it is black."""
    image = np.zeros((48, 64, 3), np.uint8)
    depth = np.ones((48, 64), np.float32)
    image[:30, :, 2], depth[:30] = 250, np.inf
    depth[40:] = 0
    transform = TrainTransform(None, None, None, rotation=20.0, flip=0.5, lighting=0, jitter=0)
    source = ArraySource([(image, depth)])
    source.beyond = True
    sample = DepthDataset(source, transform, seed=seed)[0]
    shown = sample["image"][2] > sample["image"][2].mean()
    beyond = sample["beyond"][0]
    assert (shown == beyond).float().mean() > 0.95  # bilinear and nearest differ at borders
    assert not beyond[-1].any()


@pytest.mark.parametrize("transform", [EvalTransform(*SIZES), TrainTransform(*SIZES)])
def test_resizing_and_crops_never_mix_it_with_depth(transform):
    dataset = DepthDataset(SkySource(3), transform)
    for index in range(3):
        sample = dataset[index]
        known = np.unique(sky_pair(index)[1])
        assert sample["beyond"].shape == (1, 10, 14)
        assert sample["beyond"].any()
        assert np.isin(sample["depth"].numpy(), known).all()


def test_the_histogram_counts_it_apart_and_keeps_it_in_the_cache(own_cache):
    data = set_up_sky()
    histogram = data.train_histogram()
    maps = [sky_pair(index)[1] for index in range(12)]
    counted = sum(((m >= 2) & (m <= 40)).sum() for m in maps)
    assert (histogram.total, histogram.beyond) == (counted, sum(np.isinf(m).sum() for m in maps))
    assert set_up_sky().train_histogram().to_dict() == histogram.to_dict()
    assert len(list(own_cache.iterdir())) == 1
    measured = set_up_sky(measured_beyond=True).train_histogram()
    assert measured.beyond == sum((m > 40).sum() for m in maps)
    assert measured.total == counted


def test_padding_counts_nowhere_and_pictures_of_two_sizes_are_padded():
    source = SkySource(2)
    source.pairs[1] = sky_pair(1, 40, 80)
    data = SkyDataModule()
    data.train_source = data.test_source = lambda: source
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["beyond"].shape == (2, 1, 48, 80)
    assert not batch["beyond"][..., 40:, 64:].any()
    padding = data.test_set.padding()
    assert not padding["beyond"].any()
    assert not padding["depth"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_a_packed_file_keeps_it_beside_all_levels(tmp_path, monkeypatch, dtype):
    """65535 is what 16 bits cannot say otherwise; 8 bits get 16, for 255 may be a depth."""
    source, scale = SkySource(4), {np.float32: 0.001, np.uint8: 0.25, np.uint16: 0.01}[dtype]
    if dtype is not np.float32:
        source.levels = np.dtype(dtype), scale
        source.pairs = [
            (image, (np.rint(depth.astype(float) / scale) * scale).astype(np.float32))
            for image, depth in source.pairs
        ]
    source.image_paths = source.names = [f"{i}.png" for i in range(4)]
    monkeypatch.setattr(packing_room, "_found", lambda *_: ("folder", {}, [("train", source)]))
    packing_room.pack(tmp_path, tmp_path / "pairs.h5", None)
    found = PackedPairs(tmp_path / "pairs.h5", "train")
    assert found.beyond
    for index in range(4):
        one, other = source.load(index), found.load(index)
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(np.isinf(one[1]), np.isinf(other[1]))
        finite = np.isfinite(one[1])
        assert np.abs(one[1][finite] - other[1][finite]).max() <= scale / 2 + 1e-6


def test_labels_are_inf_there_and_no_bin_holds_them():
    data = set_up_sky()
    maps = list(data.labels("test"))
    assert all(np.isinf(m.numpy()).any() for m in maps)
    bins = data.bins()
    assert (bins.index(maps[0])[maps[0].isinf()] == -1).all()
