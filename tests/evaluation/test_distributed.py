import json

import torch.distributed as dist
import torch.multiprocessing as mp

from depthbal.evaluation import BinnedDepthMetrics, DepthBins
from tests.evaluation.test_metrics import assert_equal, batch


def score_own_share(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        preds, target, mask = batch(images=5)
        own = slice(0, 2) if rank == 0 else slice(2, 5)
        metric = BinnedDepthMetrics(DepthBins.nyud2())
        metric.update(preds[own], target[own], mask[own])
        with open(f"{folder}/rank{rank}.json", "w") as file:
            json.dump(metric.compute(), file)
    finally:
        dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(tmp_path):
    mp.spawn(score_own_share, args=(str(tmp_path),), nprocs=2)
    metric = BinnedDepthMetrics(DepthBins.nyud2())
    metric.update(*batch(images=5))
    expected = metric.compute()
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        for group in ("overall", "many", "medium", "few"):
            assert_equal(found[group], expected[group])
            assert_equal(found["per_image_mean"][group], expected["per_image_mean"][group])
        for row, other in zip(found["bins"], expected["bins"], strict=True):
            assert_equal(row, other, ("count", "images", "rmse", "delta1"))
    assert expected["overall"]["count"] > 1000
