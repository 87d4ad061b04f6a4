"""From pairs to samples: the checks, the subsets, the order of an epoch, the loader."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from depthbal.data import (
    DepthDataset,
    EpochSampler,
    EvalTransform,
    PairSubset,
    TrainTransform,
)
from depthbal.data.dataset import check_pair, check_split
from depthbal.data.loader import PADDING, LateLoader, ShardSampler
from depthbal.errors import DataError
from tests.data.make_files import ArraySource, array_source, grey_image, ramp_depth

TRANSFORM = TrainTransform(24, (20, 28), (10, 14))
EVALUATION = EvalTransform(24, (20, 28))
GREY, RAMP = grey_image(4, 6), ramp_depth(4, 6)


@pytest.mark.parametrize(
    ("image", "depth", "words"),
    [
        (GREY, np.ones((6, 4), np.float32), "depth map is 6 x 4 of float32 and its image 4 x 6"),
        (GREY, np.ones((4, 6), np.float64), "depth map is 4 x 6 of float64"),
        (GREY[..., 0], RAMP, "its image 4 x 6 of uint8; expected"),
        (GREY.astype(np.float32), RAMP, "its image 4 x 6 x 3 of float32; expected"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_pair(image, depth, words):
    with pytest.raises(DataError, match=f"pair 7: .*{words}"):
        check_pair(image, depth, "pair 7")


def test_what_is_no_depth_becomes_0_wherever_it_comes_from():
    depth = ramp_depth(24, 32).copy()
    depth[0, :5] = np.nan, np.inf, -np.inf, -1, 1e10
    depth[1, :2] = 10.0, np.nextafter(np.float32(10), np.float32(20))  # in its file's units
    dataset = DepthDataset(ArraySource([(grey_image(24, 32), depth)]), EVALUATION, limit=10.0)
    for found in (dataset.truth(0), dataset.pair(0)[1]):
        assert not found[0, :5].any()
        assert (found[1, :2] > 0).all()
        assert np.array_equal(found[2:], depth[2:])


def test_a_split_is_judged_by_pairs_spread_over_it_and_the_others_when_they_are_loaded():
    source = array_source(100)
    split = DepthDataset(source, EVALUATION)
    image, depth = source.pairs[50]
    source.pairs[50] = (image, depth[:-1])
    check_split(split, 0.7, "test")  # none of the pairs that are looked at
    with pytest.raises(DataError, match="array 50: the depth map is 23 x 32"):
        split[50]
    source.pairs[40:60] = [source.pairs[50]] * 20
    with pytest.raises(DataError, match=r"array 4\d: the depth map is 23 x 32"):
        check_split(split, 0.7, "test")


def test_a_subset_delivers_the_chosen_pairs_in_the_given_order():
    source = array_source(5)
    subset = PairSubset(source, [3, 1])
    assert [subset.name(i) for i in range(len(subset))] == ["array 3", "array 1"]
    assert subset.load(0)[1] is source.pairs[3][1]
    assert subset.load_depth(1) is source.pairs[1][1]
    choices = ([3, 1], [1, 3], [3, 2], [3, 1, 2])
    assert len({PairSubset(source, chosen).fingerprint() for chosen in choices}) == 4
    with pytest.raises(IndexError, match="out of range"):
        PairSubset(source, [0, 5])


def sampler_of(dataset, seed, epoch):
    sampler = EpochSampler(dataset, seed=seed)
    sampler.set_epoch(epoch)
    return sampler


def by_item(loader: DataLoader) -> dict[int, torch.Tensor]:
    return {
        int(index): torch.cat([image.flatten(), depth.flatten()])
        for batch in loader
        for index, image, depth in zip(batch["index"], batch["image"], batch["depth"], strict=True)
    }


def test_augmentation_is_the_same_for_any_number_of_workers_order_and_batch():
    dataset = DepthDataset(array_source(10), TRANSFORM, seed=4)
    runs = []
    for order_seed, workers, batch in ((4, 0, 2), (5, 2, 3), (6, 1, 10)):
        sampler = sampler_of(dataset, order_seed, 3)
        loader = DataLoader(dataset, sampler=sampler, num_workers=workers, batch_size=batch)
        runs.append(by_item(loader))
    for other in runs[1:]:
        assert other.keys() == runs[0].keys()
        for index, values in other.items():
            assert torch.equal(values, runs[0][index])


def test_augmentation_changes_with_epoch_seed_and_sample():
    source = ArraySource([(grey_image(24, 32), ramp_depth(24, 32))] * 2)
    dataset, reseeded = (DepthDataset(source, TRANSFORM, seed=seed) for seed in (0, 1))
    images = [dataset[0, 0], dataset[1, 0], dataset[0, 1], reseeded[0, 0]]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert not torch.equal(one["image"], other["image"])
    assert torch.equal(dataset[1]["image"], dataset[0, 1]["image"])  # epoch 0 where none is given


def test_padding_has_no_depth_and_no_index_of_a_sample():
    dataset = DepthDataset(array_source(2), EVALUATION)
    sample = dataset[-1]
    assert sample["index"] == -1
    assert sample["image"].shape == (3, 20, 28)
    assert sample["depth"].shape == (1, 20, 28)
    assert not sample["depth"].any()
    for index in (2, -2, (0, 2)):
        with pytest.raises(IndexError, match="2 samples"):
            dataset[index]


def test_every_epoch_visits_every_sample_once_in_an_order_of_seed_and_epoch_only():
    sampler = EpochSampler(range(50), seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        items = list(sampler)
        assert items == list(sampler)  # iterating twice does not move on
        assert {item[0] for item in items} == {epoch}
        orders.append([item[1] for item in items])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2]
    assert list(sampler_of(range(50), 1, 2)) == items
    # seed + epoch alone would make these two the same
    assert [i for _, i in sampler_of(range(50), 2, 1)] != orders[2]


@pytest.mark.parametrize("size", [1, 2, 7, 12])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_share_an_epoch_in_equal_parts_and_evaluation_exactly_once(size, world):
    ranks = [{"num_replicas": world, "rank": rank} for rank in range(world)]
    parts = [list(EpochSampler(range(size), seed=3, **rank)) for rank in ranks]
    assert len({len(part) for part in parts}) == 1
    together = [part[step][1] for step in range(len(parts[0])) for part in parts]
    assert set(together) == set(range(size))
    assert len(together) - size < world
    assert together[:size] == [index for _, index in EpochSampler(range(size), seed=3)]
    parts = [list(ShardSampler(range(size), **rank)) for rank in ranks]
    assert len({len(part) for part in parts}) == 1
    indices = [index for part in parts for index in part]
    assert sorted(i for i in indices if i != PADDING) == list(range(size))


def loader_of(source, workers):
    dataset = DepthDataset(source, EVALUATION)
    kept = workers > 0
    return LateLoader(
        dataset, 2, sampler=EpochSampler(dataset), num_workers=workers, persistent_workers=kept
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_set_after_the_iterator_was_made_still_counts(workers):
    loader = loader_of(array_source(20), workers)
    for epoch in (3, 4):
        batches = iter(loader)
        loader.sampler.set_epoch(epoch)
        seen = [index for batch in batches for index in batch["index"].tolist()]
        assert seen == [index for _, index in sampler_of(range(20), 0, epoch)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_process_reads_as_if_it_were_here(workers):
    source = array_source(2)
    source.pairs[1] = (grey_image(24, 32), ramp_depth(20, 32))
    with pytest.raises(DataError) as caught:
        list(loader_of(source, workers))
    assert str(caught.value) == (
        "array 1: the depth map is 20 x 32 of float32 and its image 24 x 32 x 3 of uint8; "
        "expected both of one size, H x W of float32 and H x W x 3 of uint8"
    )
