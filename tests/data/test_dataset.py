import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from depthbal.data import DepthDataset, EpochSampler, EvalTransform, TrainTransform
from depthbal.data.dataset import sample_seed
from depthbal.errors import DataError
from tests.data.make_files import ArraySource, array_source, grey_image, ramp_depth

TRANSFORM = TrainTransform(24, (20, 28), (10, 14))


def by_item(loader: DataLoader) -> dict[int, torch.Tensor]:
    return {
        int(index): torch.cat([image.flatten(), depth.flatten()])
        for batch in loader
        for index, image, depth in zip(batch["index"], batch["image"], batch["depth"], strict=True)
    }


def test_augmentation_is_the_same_for_any_number_of_workers_order_and_batch():
    dataset = DepthDataset(array_source(10), TRANSFORM, seed=4)
    runs = [
        by_item(
            DataLoader(
                dataset,
                sampler=EpochSampler(dataset, seed=order_seed, epoch=3),
                num_workers=workers,
                batch_size=batch,
            )
        )
        for order_seed, workers, batch in ((4, 0, 2), (5, 2, 3), (6, 1, 10))
    ]
    for other in runs[1:]:
        assert other.keys() == runs[0].keys()
        for index, values in other.items():
            assert torch.equal(values, runs[0][index])


def test_augmentation_changes_with_epoch_seed_and_sample():
    pair = (np.full((24, 32, 3), 128, dtype=np.uint8), ramp_depth(24, 32))
    source = ArraySource([pair, pair])
    dataset, reseeded = (DepthDataset(source, TRANSFORM, seed=seed) for seed in (0, 1))
    images = [dataset[0, 0], dataset[1, 0], dataset[0, 1], reseeded[0, 0]]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert not torch.equal(one["image"], other["image"])


def test_a_plain_index_means_epoch_zero():
    dataset = DepthDataset(array_source(2), TRANSFORM)
    assert torch.equal(dataset[1]["image"], dataset[0, 1]["image"])
    assert dataset[1]["index"] == 1


def test_seeds_of_neighbours_do_not_collide():
    seeds = {sample_seed(s, e, i) for s in range(3) for e in range(20) for i in range(300)}
    # 18,000 draws from 2^32: 0.04 collisions expected
    assert len(seeds) > 18_000 - 5


def test_padding_has_no_depth_and_no_index_of_a_sample():
    sample = DepthDataset(array_source(2), EvalTransform(24, (20, 28)))[-1]
    assert sample["index"] == -1
    assert sample["image"].shape == (3, 20, 28)
    assert sample["depth"].shape == (1, 20, 28)
    assert not sample["depth"].any()


@pytest.mark.parametrize("index", [2, -2, (0, 2)])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match="2 samples"):
        DepthDataset(array_source(2), TRANSFORM)[index]


def test_errors_of_the_content_and_of_the_crop_name_the_sample():
    small = (grey_image(10, 10), ramp_depth(10, 10))
    unequal = (grey_image(24, 32), ramp_depth(32, 24))
    dataset = DepthDataset(ArraySource([small, unequal]), TrainTransform(None, (20, 28)))
    with pytest.raises(DataError, match="array 0: the crop of 20 x 28"):
        dataset[0]
    with pytest.raises(DataError, match="array 1: the depth map is 32 x 24"):
        dataset[1]
