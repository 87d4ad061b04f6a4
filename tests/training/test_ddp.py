"""Two processes train, smooth features, score and write what one does on the joined batches."""

import numpy as np
import pytest
import torch

from depthbal.data import RoomsDataModule
from depthbal.evaluation import GROUPS, Scores
from tests.processes import in_two_processes
from tests.training.helpers import (
    GAI,
    Changed,
    checkpoint_of,
    logged,
    metrics_of,
    tiny_config,
    train_tiny,
)


def with_holes(index, depth):
    depth = depth.copy()
    depth[: 18 - 6 * (index % 4)] = 0
    return depth


class UnequalRooms(RoomsDataModule):
    """Rooms whose share of valid pixels grows from image to image."""

    def train_source(self):
        return Changed(super().train_source(), with_holes)

    def test_source(self):
        return Changed(super().test_source(), with_holes)


class Flat(torch.nn.Sequential):
    """A network without statistics of the batch."""

    def __init__(self) -> None:
        first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        super().__init__(first, torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1))


def test_two_processes_train_and_score_as_one_on_the_joined_batch(tmp_path):
    sizes = {"n_train": 8, "n_val": 3, "n_test": 5, "size": [24, 32], "num_workers": 0}
    data = {"class_path": f"{__name__}.UnequalRooms", "init_args": {**sizes, "batch_size": 4}}
    # a large step, so that a wrong weight between the processes would show
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    model = {"model": {"class_path": f"{__name__}.Flat"}, "criterion": GAI, "optimizer": sgd}
    smoothing = {"callbacks": [{"class_path": "depthbal.training.FeatureSmoothing"}]}
    smoothing["precision"] = "32-true"  # sums in bfloat16 depend on where a batch is split
    sections = {"data": data, "model": {**model, "lr_scheduler": None}, "trainer": smoothing}
    config = tiny_config(tmp_path / "tiny.yaml", **sections)
    alone, together = train_tiny(config, tmp_path / "alone"), tmp_path / "together"
    in_two_processes(train_tiny, config, together, "--data.batch_size=2")
    one, two = (checkpoint_of(run)["state_dict"] for run in (alone, together))
    assert "criterion.noise.log_sigma" in one
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    one, two = (checkpoint_of(run)["callbacks"]["FeatureSmoothing"] for run in (alone, together))
    assert one["passes"].max() == 2
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)
    first, second = (Scores.load(run) for run in (alone, together))
    assert second.names == first.names == [f"rooms/test/{index:05d}" for index in range(5)]
    np.testing.assert_allclose(second.sums("all"), first.sums("all"), rtol=1e-3, atol=1e-3)
    found, expected = metrics_of(together), metrics_of(alone)
    for shot in GROUPS:
        for block, other in ((found, expected), (found["all_pixels"], expected["all_pixels"])):
            assert block[shot]["count"] == other[shot]["count"] > 0
            assert block[shot]["rmse"] == pytest.approx(other[shot]["rmse"], rel=1e-4)
    curves = [
        [float(row["val/rmse_bins"]) for row in logged(run) if row["val/rmse_bins"]]
        for run in (alone, together)
    ]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
