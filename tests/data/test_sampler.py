import pytest

from depthbal.data.sampler import PADDING, EpochSampler, ShardSampler


def test_every_epoch_visits_every_sample_once_in_another_order():
    sampler = EpochSampler(range(50), seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        items = list(sampler)
        assert {item[0] for item in items} == {epoch}
        orders.append([item[1] for item in items])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2]


def test_the_order_depends_on_seed_and_epoch_only():
    later = EpochSampler(range(50), seed=1, epoch=2)
    walked = EpochSampler(range(50), seed=1)
    for epoch in range(3):
        walked.set_epoch(epoch)
        last = list(walked)
    assert list(later) == last
    assert list(later) == last  # iterating twice does not move on
    # seed + epoch alone would make these two the same
    shifted = EpochSampler(range(50), seed=2, epoch=1)
    assert [i for _, i in shifted] != [i for _, i in last]


@pytest.mark.parametrize("size", [1, 2, 7, 12])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_share_an_epoch_in_equal_parts(size, world):
    parts = [
        list(EpochSampler(range(size), seed=3, num_replicas=world, rank=rank))
        for rank in range(world)
    ]
    assert len({len(part) for part in parts}) == 1
    indices = [index for part in parts for _, index in part]
    assert set(indices) == set(range(size))
    assert len(indices) - size < world
    alone = [index for _, index in EpochSampler(range(size), seed=3)]
    together = [part[step][1] for step in range(len(parts[0])) for part in parts]
    assert together[:size] == alone


@pytest.mark.parametrize("size", [1, 2, 7, 12])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_evaluation_visits_every_sample_exactly_once_over_all_ranks(size, world):
    parts = [list(ShardSampler(range(size), num_replicas=world, rank=r)) for r in range(world)]
    assert len({len(part) for part in parts}) == 1
    indices = [index for part in parts for index in part]
    assert sorted(i for i in indices if i != PADDING) == list(range(size))


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="rank 2"):
        EpochSampler(range(3), num_replicas=2, rank=2)
