import json

import torch.distributed as dist
import torch.multiprocessing as mp

from depthbal.evaluation import (
    DEPTH_METRICS,
    GROUPS,
    LABEL_METRICS,
    BinnedDepthMetrics,
    BinnedMetrics,
    DepthBins,
)
from tests.evaluation.test_metrics import assert_equal, batch
from tests.evaluation.test_scores import AGES, ages


def numbers(part):
    """What depth and age metrics say about some of the images."""
    preds, target, mask = batch(images=5)
    depth = BinnedDepthMetrics(DepthBins.nyud2())
    depth.update(preds[part], target[part], mask[part])
    years = BinnedMetrics(AGES)
    years.update(*(values[part] for values in ages(samples=5)))
    return {"depth": depth.compute(), "ages": years.compute()}


def score_own_share(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        with open(f"{folder}/rank{rank}.json", "w") as file:
            json.dump(numbers(slice(0, 2) if rank == 0 else slice(2, 5)), file)
    finally:
        dist.destroy_process_group()


def test_two_processes_give_every_number_of_one(tmp_path):
    mp.spawn(score_own_share, args=(str(tmp_path),), nprocs=2)
    expected = numbers(slice(None))
    compared = 0
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        for kind, metrics in (("depth", DEPTH_METRICS), ("ages", LABEL_METRICS)):
            compared += assert_same(found[kind], expected[kind], metrics)
    assert compared > 2 * 93 * len(DEPTH_METRICS)
    assert expected["depth"]["overall"]["count"] > 1000


def assert_same(found, expected, metrics):
    """Compare all metrics of all groups, averages and bins; return how many that were."""
    compared = 0
    for group in GROUPS:
        for block, other in (
            (found, expected),
            (found["per_image_mean"], expected["per_image_mean"]),
            (found["per_bin_mean"], expected["per_bin_mean"]),
        ):
            assert set(metrics) < set(other[group])
            assert_equal(block[group], other[group])
            compared += len(metrics)
    for row, other in zip(found["bins"], expected["bins"], strict=True):
        assert_equal(row, other, ("bin", "count", "images", *metrics))
        compared += len(metrics)
    return compared
