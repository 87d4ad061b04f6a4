import pytest

from depthbal.data import DepthDataset, EpochSampler, EvalTransform
from depthbal.data.loader import LateLoader
from depthbal.errors import DataError
from tests.data.make_files import array_source


def loader_of(source, workers):
    dataset = DepthDataset(source, EvalTransform(24, (20, 28)))
    return LateLoader(
        dataset,
        sampler=EpochSampler(dataset),
        num_workers=workers,
        persistent_workers=workers > 0,
        batch_size=2,
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_set_after_the_iterator_was_made_still_counts(workers):
    loader = loader_of(array_source(20), workers)
    for epoch in (3, 4):
        batches = iter(loader)
        loader.sampler.set_epoch(epoch)
        seen = [index for batch in batches for index in batch["index"].tolist()]
        assert seen == [index for _, index in EpochSampler(range(20), epoch=epoch)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_process_reads_as_if_it_were_here(workers):
    source = array_source(2)
    image, depth = source.pairs[1]
    source.pairs[1] = (image, depth[:20])
    expected = (
        "array 1: the depth map is 20 x 32 but its image 24 x 32 (height x width); "
        "export both at the same size"
    )
    with pytest.raises(DataError) as caught:
        list(loader_of(source, workers))
    assert str(caught.value) == expected
